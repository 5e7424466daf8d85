"""Small integers as bit planes: b bits a number, b from 1 to 8, whatever b is.

Plane k holds bit k of every number, eight numbers a byte. No width is a special case, and only
the last byte of a plane can be partly empty.
"""

import torch
from jaxtyping import UInt8
from torch import Tensor

from mech.errors import BadInput

Codes = UInt8[Tensor, "*shape"]
Planes = UInt8[Tensor, "bits bytes"]


def pack(codes: Codes, bits: int) -> Planes:
    """planes[k] = bit k of codes[0], codes[1], …, the first number in the lowest bit of a byte.

    Raises BadInput where a code has more than `bits` bits.
    """
    flat = codes.flatten()
    if bits < 8 and len(flat) and int(flat.max()) >= 1 << bits:
        raise BadInput(f"code {int(flat.max())} does not fit in {bits} bits")
    eights = torch.nn.functional.pad(flat, (0, -len(flat) % 8)).view(-1, 8)
    place = torch.arange(8, dtype=torch.uint8, device=codes.device)
    planes = [(((eights >> k) & 1) << place).sum(1, dtype=torch.uint8) for k in range(bits)]
    return torch.stack(planes)


def unpack(planes: Planes, shape: tuple[int, ...]) -> Codes:
    """The numbers again, exactly: `unpack(pack(codes, b), codes.shape)` is `codes`."""
    spread = _spread(planes.device)
    total = torch.zeros(planes.shape[1], dtype=torch.int64, device=planes.device)
    for k, plane in enumerate(planes):
        # Eight numbers at a time: a shift below 8 never leaves the byte of a number.
        total |= spread[plane.int()] << k
    count = int(torch.Size(shape).numel())
    return total.view(torch.uint8)[:count].view(shape)


def _spread(device: torch.device) -> Tensor:
    """For each byte, its eight bits as the eight bytes of one integer of 64 bits."""
    byte = torch.arange(256, dtype=torch.uint8, device=device)[:, None]
    place = torch.arange(8, dtype=torch.uint8, device=device)
    return ((byte >> place) & 1).contiguous().view(torch.int64).flatten()
