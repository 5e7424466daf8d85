"""Wanda: pruning by weights and activations (Sun et al. 2023, arXiv:2306.11695, equation 1)."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from bridge.operators import LinearOperator, Sparse, Weight
from bridge.patterns import Pattern, RowWise
from bridge.statistics import Moment, Statistic, diagonal_moment

HALF = RowWise(0.5)


def score(weight: Weight, seen: Moment) -> Weight:
    """|W_ij| √E[x_j²], in float32.

    Examples:
        >>> seen = Moment(torch.tensor([1.0, 100.0], dtype=torch.float64), 1)
        >>> score(torch.tensor([[3.0, 1.0]]), seen).tolist()
        [[3.0, 10.0]]
    """
    return weight.float().abs() * seen.mean.sqrt().to(weight.device, weight.float().dtype)


@dataclass(frozen=True)
class Wanda:
    """Keep the largest |W_ij| √E[x_j²] of every row."""

    pattern: Pattern = HALF
    """Which entries survive."""
    statistic: ClassVar[Statistic[Moment]] = diagonal_moment

    def __call__(self, weight: Weight, seen: Moment) -> LinearOperator:
        return Sparse(torch.where(self.pattern.mask(score(weight, seen)), weight, 0))
