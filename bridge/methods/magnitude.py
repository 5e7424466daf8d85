"""Magnitude pruning (Han et al. 2015, arXiv:1506.02626): the data-free baseline."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from bridge.operators import LinearOperator, Sparse, Weight
from bridge.patterns import LayerWise, Pattern
from bridge.statistics import Count, Statistic, nothing

HALF = LayerWise(0.5)


@dataclass(frozen=True)
class Magnitude:
    """Keep the largest |W_ij|; the whole matrix competes, as in the papers that compare with it."""

    pattern: Pattern = HALF
    """Which entries survive."""
    statistic: ClassVar[Statistic[Count]] = nothing

    def __call__(self, weight: Weight, seen: Count) -> LinearOperator:
        return Sparse(torch.where(self.pattern.mask(weight.abs()), weight, 0))
