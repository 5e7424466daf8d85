"""Rounding to the nearest value of a grid: the data-free quantiser that the others start from."""

from dataclasses import dataclass
from typing import ClassVar

from bridge.operators import LinearOperator, Weight
from bridge.quantizers import Quantizer, RoundToNearest
from bridge.statistics import Count, Statistic, nothing

FOUR_BITS = RoundToNearest(4, 64)


@dataclass(frozen=True)
class Rounding:
    """Ŵ_ij: the value nearest to W_ij on the grid of its row and group."""

    quantizer: Quantizer = FOUR_BITS
    """The grid: RoundToNearest or MXINT, with bits and group."""
    statistic: ClassVar[Statistic[Count]] = nothing

    def __call__(self, weight: Weight, seen: Count) -> LinearOperator:
        return self.quantizer(weight)
