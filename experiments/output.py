"""One folder a run, written whole or not at all."""

import errno
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

RESULT = "result.json"
WRITTEN = {RESULT, "report.html", "pictures"}  # all that a run leaves in its folder
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
            run wrote (those are never removed); another run is writing it, or has taken it
            meanwhile; it is the current folder; its parent cannot be written; the disk is full.
    """
    path = path.resolve()
    check_free(path, replace=replace)
    partial = path.parent / f".{path.name}.partial-{os.getpid()}"
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _forget_the_dead(path)
            partial.mkdir()
        except OSError as error:
            raise OutputRefused(f"cannot write in {path.parent}: {error.strerror}") from error
        yield partial
        _publish(partial, path, replace=replace)
    except OSError as error:
        if error.errno in FULL:
            raise OutputRefused(
                f"disk full while writing {path}: {error.strerror}; nothing was kept, free some "
                "space or choose another --out"
            ) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in missing:  # innermost first; the first that is not empty ends it
            with suppress(OSError):
                folder.rmdir()


def check_free(path: Path, *, replace: bool) -> None:
    """Refuse a path that is taken, before any work is done for it.

    Raises:
        OutputRefused: see `output_folder`.
    """
    if Path.cwd().is_relative_to(path):
        raise OutputRefused(
            f"{path} is the current folder or holds it, and a run replaces its folder; "
            "choose another --out"
        )
    if not path.exists():
        return
    if not path.is_dir():
        raise OutputRefused(f"{path} is a file; --out wants a folder")
    there = {entry.name for entry in path.iterdir()}
    if not there:
        return
    if strangers := there - WRITTEN:
        raise OutputRefused(
            f"{path} holds files that no run wrote, such as {min(strangers)}; choose another --out"
        )
    if not replace:
        raise OutputRefused(f"{path} holds another run; choose another --out or pass --replace")


def _publish(partial: Path, path: Path, *, replace: bool) -> None:
    """Rename into place; the old run goes only when the new one stands."""
    for file in partial.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    try:
        check_free(path, replace=replace)
    except OutputRefused as refused:  # what came meanwhile stays, and so does this
        aside = path.with_name(f"{path.name}-{os.getpid()}")
        partial.rename(aside)
        raise OutputRefused(
            f"{path} was taken while this ran; its answer is in {aside}"
        ) from refused
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
    """Remove what a killed run of the same name left behind; refuse beside a living one."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.partial-*"):
        pid = left.name.rpartition("-")[2]
        if not pid.isdigit():
            continue
        if int(pid) != os.getpid() and _alive(int(pid)):
            raise OutputRefused(
                f"another run (process {pid}) is writing {path}; choose another --out"
            )
        shutil.rmtree(left, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # alive, and somebody else's
        return True
    return True
