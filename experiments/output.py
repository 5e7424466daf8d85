"""One folder a run, written whole or not at all."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

RESULT = "result.json"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class OutputRefused(ValueError):
    """The output folder cannot be used; the message says why and what to do."""


@contextmanager
def output_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to write in, which becomes `path` when the block ends without an exception.

    Until then everything lies in a hidden folder beside it, so that a crash, a full disk or a
    second run cannot leave half a result under the name that was asked for.

    Raises:
        OutputRefused: `path` holds another run and `replace` is false; it holds files that no
            run wrote (those are never removed); its parent cannot be written; the disk is full.
    """
    path = path.absolute()
    check_free(path, replace=replace)
    partial = path.parent / f".{path.name}.partial-{os.getpid()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _forget_the_dead(path)
        partial.mkdir()
    except OSError as error:
        raise OutputRefused(f"cannot write in {path.parent}: {error.strerror}") from error
    try:
        yield partial
        _publish(partial, path)
    except OSError as error:
        if error.errno in FULL:
            raise OutputRefused(
                f"disk full while writing {path}: {error.strerror}; nothing was kept, free some "
                "space or choose another --out"
            ) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_free(path: Path, *, replace: bool) -> None:
    """Refuse a path that is taken, before any work is done for it.

    Raises:
        OutputRefused: see `output_folder`.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise OutputRefused(f"{path} is a file; --out wants a folder")
    if not any(path.iterdir()):
        return
    if not (path / RESULT).is_file():
        raise OutputRefused(f"{path} holds files that no run wrote; choose another --out")
    if not replace:
        raise OutputRefused(f"{path} holds another run; choose another --out or pass --replace")


def _publish(partial: Path, path: Path) -> None:
    """Rename into place; the old run goes only when the new one stands."""
    for file in partial.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    old = path.parent / f".{path.name}.replaced-{os.getpid()}"
    if path.exists():
        path.rename(old)
    try:
        partial.rename(path)
    except OSError:
        with suppress(OSError):
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _forget_the_dead(path: Path) -> None:
    """Remove what a killed run of the same name left behind."""
    for left in path.parent.glob(f".{path.name}.partial-*"):
        pid = left.name.rpartition("-")[2]
        if not pid.isdigit():
            continue
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except PermissionError:  # alive, and somebody else's
            continue
