"""A safetensors file that is written tensor by tensor, in any order, none of it in memory.

The format (huggingface/safetensors, README, "Format"): eight bytes of length, JSON, numbers. The
order of the numbers is that of the library: wider dtypes first, names within a dtype.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from bridge.fingerprint import raw
from mech.errors import BadInput

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_ORDER = [
    "BOOL",
    "U8",
    "I8",
    "I16",
    "F16",
    "BF16",
    "I32",
    "F32",
    "F64",
    "I64",
]  # the library's, last first

Layout = Mapping[str, Tensor]
"""Dtype and shape of every tensor by its name, as tensors on the meta device."""


class Written:
    """Files of a checkpoint whose tensors are known by shape before they are by number."""

    def __init__(self, files: Mapping[Path, Layout]) -> None:
        self._places: dict[str, tuple[Path, int, Tensor]] = {}
        for file, layout in files.items():
            for name, start in _begin(file, layout).items():
                self._places[name] = (file, start, layout[name])
        self._sums: dict[str, bytes] = {}

    def put(self, name: str, tensor: Tensor) -> None:
        """Write one tensor. Raises BadInput where no such one has a place, or it has had it."""
        expected = self._places.get(name)
        if expected is None or name in self._sums:
            raise BadInput(f"{name}: the model's files have no place for this tensor")
        file, start, like = expected
        if (like.dtype, like.shape) != (tensor.dtype, tensor.shape):
            raise BadInput(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}; its place is for {like.dtype} "
                f"{tuple(like.shape)}"
            )
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        with file.open("r+b") as stream:
            stream.seek(start)
            stream.write(flat.numpy().data)
        self._sums[name] = hashlib.sha256(flat.numpy().data).digest()

    def check(self) -> None:
        """Read every tensor back, one at a time.

        Raises BadInput, naming the first, where one was never written or is not what was written.
        """
        for name, (file, _, _) in self._places.items():
            if name not in self._sums:
                raise BadInput(f"{name} was not written: the model is not whole")
            with safe_open(file, framework="pt", backend="pread") as opened:
                again = opened.get_tensor(name)
            if hashlib.sha256(raw(again)).digest() != self._sums[name]:
                raise BadInput(f"{name} in {file} does not read as what was in memory")


def _begin(file: Path, layout: Layout) -> dict[str, int]:
    """Write the header and reserve the rest; where each tensor begins."""
    ordered = sorted(layout, key=lambda n: (-_ORDER.index(_NAMES[layout[n].dtype]), n))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts, end = {}, 0
    for name in ordered:
        tensor = layout[name]
        size = tensor.numel() * tensor.dtype.itemsize
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + size],
        }
        starts[name], end = end, end + size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)))
        stream.write(text)
        stream.truncate(8 + len(text) + end)
    return {name: 8 + len(text) + start for name, start in starts.items()}
