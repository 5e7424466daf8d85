"""A stream that waits in files: one batch of it in memory at a time."""

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import overload

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mech.disk import as_the_system_says
from mech.errors import BadInput
from mech.refusals import first_line

PREFIX = "stream-"
Stream = Float[Tensor, "_batch _seq d_model"]


class Spilled(Sequence[Stream]):
    """Tensors in the order in which they came, a file each in a folder of their own.

    Read by `pread` when they are asked for, bit for bit what was written, on the device they came
    from. The folder goes with this object; after a kill it is left in the one above. Raises
    OSError where the disk refuses, and BadInput, naming the file, where one is gone or cut.
    """

    def __init__(self, above: Path, tensors: Iterable[Stream] = ()) -> None:
        above.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(dir=above, prefix=PREFIX))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._devices: list[torch.device] = []
        self.extend(tensors)

    def append(self, tensor: Stream) -> None:
        """One more, which is on the disk and not in memory afterwards."""
        file = self._file(len(self))
        with as_the_system_says():
            save_file({"stream": tensor.detach().cpu().contiguous()}, file)
        self._devices.append(tensor.device)

    def extend(self, tensors: Iterable[Stream]) -> None:
        """Several more, one in memory at a time."""
        for tensor in tensors:
            self.append(tensor)

    def __len__(self) -> int:
        return len(self._devices)

    @overload
    def __getitem__(self, index: int) -> Stream: ...
    @overload
    def __getitem__(self, index: slice) -> list[Stream]: ...
    def __getitem__(self, index: int | slice) -> Stream | list[Stream]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        where = self._file(number)
        try:
            with safe_open(where, framework="pt", backend="pread") as file:
                return file.get_tensor("stream").to(self._devices[number])
        except (SafetensorError, OSError) as error:
            raise BadInput(
                f"{where} is not what was written there ({first_line(error)}): leave the folder "
                "alone while a run goes on, and start it again"
            ) from error

    def __iter__(self) -> Iterator[Stream]:
        return (self[index] for index in range(len(self)))

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:06d}.safetensors"


def clear(above: Path) -> None:
    """Remove what streams have left in a folder, and the folder where nothing else is in it."""
    for left in above.glob(f"{PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
    with suppress(OSError):
        above.rmdir()
