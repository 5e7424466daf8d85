"""The weights of a model's folder, read in place: a tensor or some rows of one, when asked.

Nothing is mapped into memory. A mapped file counts towards a limit on address space or on data
whole (PyTorch maps it private and writable), read or not; so files are read by `pread`.
"""

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType

import torch
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mech.errors import BadInput
from mech.refusals import first_line

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """One tensor of a file: where it lies and what it is, without its numbers."""

    file: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    def __getitem__(self, all_of_it: EllipsisType) -> Tensor:
        """In its own dtype: `tensor[...]` is how transformers reads a lazy tensor."""
        with _reading(self):
            return safe_open(self.file, framework="pt", backend="pread").get_tensor(self.name)

    def rows(self, index: Int[Tensor, " row"]) -> Tensor:
        """self[index] of a matrix, without the rows that are not asked for.

        safetensors' own slices read the whole tensor first, which is the largest of the model.
        """
        n_bytes = self.shape[1] * self.dtype.itemsize
        found = torch.empty(len(index), self.shape[1], dtype=self.dtype)
        with _reading(self), self.file.open("rb") as file:
            for row, i in zip(found.view(torch.uint8).numpy(), index.tolist(), strict=True):
                if not 0 <= i < self.shape[0]:
                    raise IndexError(f"row {i} of {self.name}, which has {self.shape[0]}")
                file.seek(self.start + i * n_bytes)
                if file.readinto(row.data) != n_bytes:
                    raise OSError("the file ends within the tensor")
        return found


def stored(files: list[Path]) -> dict[str, Stored]:
    """Every tensor of `files` by its name.

    Raises BadInput on a file whose header cannot be read, on one that is shorter than its header
    says, and on a dtype that is no plain number (float8, packed formats).
    """
    found = {}
    for file in files:
        try:
            with safe_open(file, framework="pt", backend="pread"):
                pass  # the library's own check of header and length
            header, body = _header(file)
        except (SafetensorError, OSError, ValueError, struct.error) as error:
            raise BadInput(
                f"{file} is damaged ({first_line(error)}): delete it and fetch or convert it again"
            ) from error
        for name, entry in header.items():
            if entry["dtype"] not in _DTYPES:
                raise BadInput(
                    f"{name} in {file} is stored as {entry['dtype']}: not read from disk"
                )
            start = body + entry["data_offsets"][0]
            dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
            found[name] = Stored(file, name, dtype, shape, start)
    return found


def _header(file: Path) -> tuple[dict, int]:
    """The table of contents, and where the numbers begin.

    The format (huggingface/safetensors, README, "Format"): eight bytes of length, JSON, numbers.
    """
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length


@contextmanager
def _reading(tensor: Stored) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise BadInput(
            f"{tensor.name} cannot be read from {tensor.file} ({first_line(error)}): "
            "the file changed since the model was loaded"
        ) from error
