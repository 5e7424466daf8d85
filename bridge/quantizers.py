"""Grids of values for a weight, and rounding to the nearest of them."""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from bridge.operators import Weight
from bridge.quantized import Quantized
from mech.errors import BadInput

Grouped = Float[Tensor, "d_out groups group"]
Values = Float[Tensor, "..."]
Scale = Float[Tensor, "..."]


class Grid(NamedTuple):
    """The values s (c - z), c = lowest … highest, one s and one z a row and a group of columns.

    `scale` and `zero`, [d_out, groups, 1] or of another shape that goes with the values, hold
    numbers of the stored format, in the format of the arithmetic.
    """

    scale: Scale
    zero: Scale
    lowest: int
    highest: int

    def nearest(self, values: Values) -> Values:
        """c = clip(⌊w / s⌉ + z, lowest, highest): the code of the nearest value, halves to even."""
        codes = torch.round(values / self.scale).add_(self.zero)
        return codes.clamp_(self.lowest, self.highest)

    def value(self, codes: Values) -> Values:
        """s (c - z)."""
        return (codes - self.zero) * self.scale


@runtime_checkable
class Quantizer(Protocol):
    """How a weight is put on a grid: `bits` a code, `group` columns (None: a row) share a scale."""

    @property
    def bits(self) -> int:
        """Of a code."""
        ...

    @property
    def group(self) -> int | None:
        """Consecutive columns with one scale; None is a whole row."""
        ...

    def grid(self, values: Grouped, dtype: torch.dtype) -> Grid:
        """The grid of each group, its scales rounded to `dtype`, the format they are stored in."""
        ...

    def stored(
        self, codes: UInt8[Tensor, "d_out d_in"], grid: Grid, dtype: torch.dtype
    ) -> Quantized:
        """The operator with these codes on that grid."""
        ...

    def __call__(self, weight: Weight) -> Quantized:
        """Every entry on the nearest value of the grid of its group."""
        ...


@dataclass(frozen=True)
class RoundToNearest:
    """s = 2 max|w| / (2^b - 1), z = 2^(b-1); or, not symmetric, s = (max w - min w) / (2^b - 1).

    Maximum and minimum are over a row's group of columns; without symmetry 0 is always among the
    values, and z = ⌊-min(w, 0) / s⌉ is stored too. In both, |w - ŵ| ≤ s / 2 for every entry, but
    for the rounding of s to its format. Raises BadInput for bits outside 2 to 8 or an empty group.
    """

    bits: int = 4
    """Of a code, 2 to 8."""
    group: int | None = 64
    """Consecutive columns that share a scale; None: the whole row."""
    symmetric: bool = True
    """No zero point is stored."""

    def __post_init__(self):
        _check(self.bits, self.group)

    def grid(self, values: Grouped, dtype: torch.dtype) -> Grid:
        """See the class. A group of zeros has s = 1."""
        top = (1 << self.bits) - 1
        low = values.amin(-1, keepdim=True).clamp_max(0)
        high = values.amax(-1, keepdim=True).clamp_min(0)
        if self.symmetric:
            high = torch.maximum(-low, high)
            low = -high
        # Down to the stored format and back: the codes are those of the scale that is kept.
        scale = ((high - low) / top).to(dtype).to(values)
        # Too small a step for the format is its smallest one: only a group of zeros has none.
        least = torch.full_like(scale, _least(dtype))
        scale = torch.where(scale > 0, scale, torch.where(high > low, least, 1))
        if self.symmetric:
            return Grid(scale, torch.full_like(scale, 1 << (self.bits - 1)), 0, top)
        return Grid(scale, torch.round(-low / scale).clamp_(0, top), 0, top)

    def stored(
        self, codes: UInt8[Tensor, "d_out d_in"], grid: Grid, dtype: torch.dtype
    ) -> Quantized:
        """Scales in `dtype`; zeros only where they differ."""
        zeros = None if self.symmetric else grid.zero.squeeze(-1).to(torch.uint8)
        scales = grid.scale.squeeze(-1).to(dtype)
        group = self.group or codes.shape[1]
        return Quantized(codes, scales, zeros, bits=self.bits, group=group, dtype=dtype)

    def __call__(self, weight: Weight) -> Quantized:
        return _rounded(self, weight)


@dataclass(frozen=True)
class MXINT:
    """s = 2^(⌊log₂ max|w|⌋ - b + 2), |c| < 2^(b-1): a block of columns shares a power of two.

    The integers of the OCP microscaling formats (MX v1.0, section 5.3.4: MXINT8 in blocks of 32),
    of any width b, symmetric as the standard allows: the most negative code is not used, so
    quantising twice changes nothing. The exponent is stored in 8 bits, from -127 to 127; MXINT4
    takes 4.25 bits a weight. Raises BadInput for bits outside 2 to 8 or an empty block.
    """

    bits: int = 4
    """Of a code, 2 to 8, its sign among them."""
    block: int = 32
    """Consecutive columns that share an exponent."""

    def __post_init__(self):
        _check(self.bits, self.block)

    @property
    def group(self) -> int:
        """The block."""
        return self.block

    def grid(self, values: Grouped, dtype: torch.dtype) -> Grid:
        """See the class. A block of zeros has the exponent of 1."""
        largest = values.abs().amax(-1, keepdim=True)
        # frexp: w = m 2^e, 1/2 <= m < 1, so that ⌊log₂ w⌋ = e - 1, exactly.
        exponent = torch.frexp(torch.where(largest > 0, largest, 1)).exponent - 1
        # What is below the smallest number of the format would be read back as zero.
        least = max(-127, math.frexp(_least(dtype))[1] - 1)
        exponent = (exponent - (self.bits - 2)).clamp(least, 127)
        scale = torch.ldexp(torch.ones_like(largest), exponent)
        middle = 1 << (self.bits - 1)
        return Grid(scale, torch.full_like(scale, middle), 1, 2 * middle - 1)

    def stored(
        self, codes: UInt8[Tensor, "d_out d_in"], grid: Grid, dtype: torch.dtype
    ) -> Quantized:
        """Scales as exponents."""
        exponents = (torch.frexp(grid.scale.squeeze(-1)).exponent - 1).to(torch.int8)
        return Quantized(codes, exponents, None, bits=self.bits, group=self.block, dtype=dtype)

    def __call__(self, weight: Weight) -> Quantized:
        return _rounded(self, weight)


def grouped(weight: Weight, group: int | None) -> Grouped:
    """Rows in groups of columns; the last one is filled up with zeros, which move no grid."""
    size = group or weight.shape[1]
    padded = torch.nn.functional.pad(weight, (0, -weight.shape[1] % size))
    return padded.view(len(weight), -1, size)


def _rounded(quantizer: Quantizer, weight: Weight) -> Quantized:
    values = grouped(weight.detach().double(), quantizer.group)
    grid = quantizer.grid(values, weight.dtype)
    codes = grid.nearest(values).flatten(1)[:, : weight.shape[1]]
    return quantizer.stored(codes.to(torch.uint8).contiguous(), grid, weight.dtype)


def _least(dtype: torch.dtype) -> float:
    """The smallest positive number of a format, a subnormal one."""
    return torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps


def _check(bits: int, group: int | None) -> None:
    if not 2 <= bits <= 8:
        raise BadInput(f"bits {bits}: quantise to 2 to 8")
    if group is not None and group < 1:
        raise BadInput(f"group {group}: give the columns that share a scale, at least 1, or None")
