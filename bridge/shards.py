"""Blocks that are done, one file each, so that a run that was killed goes on where it was.

A folder holds `run.json`, the fingerprint of the run that it belongs to, and a file for every
block that is done, named from its index. A file is written beside its name, flushed and then
renamed: a crash can lose the block in flight, never damage an earlier one.
"""

import fcntl
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from bridge.compression import Done
from bridge.fingerprint import fingerprint, raw
from bridge.parcel import unwrapped, wrapped
from mech.disk import PARTIAL, write_whole
from mech.errors import BadInput
from mech.refusals import first_line

RUN = "run.json"
# Values of a fingerprint that are words, and not digests.
_WORDS = {"method", "select", "dtype and device", "arithmetic", "format"}


class Shards:
    """A folder of one run; `compress(..., shards=Shards(folder))`.

    The result after any number of kills is that of a run that was never killed, bit by bit.
    `tell` hears of a file that was damaged and of a block that is therefore done again; it is
    `warnings.warn` unless another is given. A folder that another process writes to is refused;
    with `wait`, as a cache needs it, waited for: what that process has done is then read.
    """

    def __init__(
        self,
        folder: Path | str,
        tell: Callable[[str], None] | None = None,
        *,
        wait: bool = False,
    ) -> None:
        self.folder = Path(folder).absolute()
        self._tell = tell or (lambda message: warnings.warn(message, stacklevel=4))
        self._wait = wait
        self._run = ""

    @contextmanager
    def running(
        self,
        model: nn.Module,
        method: Any,
        batches: Sequence[Int[Tensor, "_batch _seq"]],
        *,
        select: str = "*",
        token_weights: Sequence[Float[Tensor, "_batch _seq"]] | None = None,
    ) -> Iterator[None]:
        """Inside, the folder is this run's: made for it, or left by one like it.

        Raises BadInput, one line, where it belongs to a run that would give other bytes, where
        it holds other files and no run, and, unless it waits, while another process writes to
        it; OSError where the disk refuses.
        """
        run = fingerprint(model, method, batches, select=select, token_weights=token_weights)
        with _clear(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with _alone(self.folder, self._wait):
            with _clear(self.folder):
                self._claim(run)
                for left in self.folder.glob(f"*{PARTIAL}"):
                    left.unlink()
            self._run = _name_of(run)
            yield

    def joined(self) -> "Shards":
        """Themselves, of the run that the folder says it is of: to read what another one wrote.

        Raises BadInput where the folder holds none.
        """
        try:
            self._run = _name_of(json.loads((self.folder / RUN).read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise BadInput(
                f"{self.folder} has no {RUN} that can be read: compress first"
            ) from error
        return self

    def holds(self, layer: int) -> bool:
        """Whether there is a file of the block; `read` says whether it is sound."""
        return self._file(layer).exists()

    def read(self, layer: int) -> dict[str, Done] | None:
        """What stood in a block, by linear; None where it is to be done, or done again.

        A file that is cut or changed is told of and done again. Raises BadInput where a sound
        one belongs to another run or to another block: somebody put it there.
        """
        file = self._file(layer)
        if not file.exists():
            return None
        try:
            content, found = _loaded(file)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            self._tell(f"{file} is damaged ({first_line(error)}): block {layer} is done again")
            return None
        try:
            if content["run"] != self._run or content["layer"] != layer:
                whose = (
                    "another run" if content["run"] != self._run else f"block {content['layer']}"
                )
                raise BadInput(f"{file} belongs to {whose}: remove it, or choose another folder")
            return unwrapped(content["linears"], found)
        except (KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"{file} holds no block that this version wrote: remove it") from error

    def write(self, layer: int, done: Mapping[str, Done]) -> None:
        """Keep a block, whole or not at all; OSError, one line, where the disk refuses."""
        linears, held = wrapped(done)
        content = json.dumps(
            {"run": self._run, "layer": layer, "linears": linears}, allow_nan=False
        )
        note = {"content": content, "sha256": _digest(content, held)}
        with _clear(self.folder):
            write_whole(self._file(layer), save(held, note))

    def _file(self, layer: int) -> Path:
        return self.folder / f"block-{layer:05d}.safetensors"

    def _claim(self, run: Mapping[str, str]) -> None:
        file = self.folder / RUN
        if not file.exists():
            others = [path.name for path in self.folder.iterdir() if path.suffix != PARTIAL]
            if others:
                raise BadInput(
                    f"{self.folder} has {others[0]} and no {RUN}: choose an empty folder"
                )
            write_whole(file, (json.dumps(run, indent=1, ensure_ascii=False) + "\n").encode())
            return
        try:
            before = dict(json.loads(file.read_text()))
        except (ValueError, TypeError) as error:
            raise BadInput(
                f"{file} cannot be read: remove {self.folder} and start again"
            ) from error
        if before != run:
            raise BadInput(
                f"{self.folder} belongs to another run ({_difference(before, dict(run))}): "
                "choose another folder, or remove it"
            )


def _name_of(run: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    said = []
    for name in {**now, **before}:
        old, new = str(before.get(name)), str(now.get(name))
        if old != new:
            words = name in _WORDS and len(old + new) < 400
            said.append(f"its {name} is {old}, here {new}" if words else f"its {name} is another")
    return "; ".join(said)


def _loaded(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(file, framework="pt") as opened:
        note = opened.metadata()
        found = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    if _digest(note["content"], found) != note["sha256"]:
        raise ValueError("its bytes are not those that were written")
    return json.loads(note["content"]), found


def _digest(content: str, held: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(content.encode())
    for key, tensor in sorted(held.items()):
        digest.update(f"\n{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(raw(tensor))
    return digest.hexdigest()


@contextmanager
def _alone(folder: Path, wait: bool) -> Iterator[None]:
    """No other process is in here; the kernel lets go of the lock of one that was killed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise BadInput(f"another process is writing to {folder}: wait for it") from error
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _clear(folder: Path) -> Iterator[None]:
    """The disk's refusals in one line."""
    try:
        yield
    except OSError as error:
        if str(folder) in str(error.strerror or error):
            raise
        reason = error.strerror or str(error)
        raise OSError(
            error.errno, f"cannot write {folder}: {reason}; blocks that are done are kept"
        ) from error
