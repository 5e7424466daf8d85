"""Plain JSON and named tensors as a line of text and one buffer of bytes, and back."""

import json
from typing import Any

import torch
from torch import Tensor


def poured(content: Any, tensors: dict[str, Tensor]) -> tuple[bytes, Tensor]:
    """The text says `content`, and name, dtype and shape of every tensor; the buffer is uint8."""
    slots = [[k, str(t.dtype).removeprefix("torch."), list(t.shape)] for k, t in tensors.items()]
    # One without entries may have no stride to be viewed by.
    full = [t.detach().cpu().contiguous() for t in tensors.values() if t.numel()]
    parts = [t.reshape(-1).view(torch.uint8) for t in full]
    flat = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.uint8)
    return json.dumps([content, slots]).encode(), flat


def refilled(text: bytes, flat: Tensor) -> tuple[Any, dict[str, Tensor]]:
    """`poured` undone, bit for bit; every tensor in memory of its own, row by row."""
    content, slots = json.loads(text)
    found, begin = {}, 0
    for key, dtype, shape in slots:
        kind = getattr(torch, dtype)
        end = begin + kind.itemsize * torch.Size(shape).numel()
        found[key] = flat[begin:end].clone().view(kind).reshape(shape)
        begin = end
    return content, found
