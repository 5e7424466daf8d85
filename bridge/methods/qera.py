"""QERA: closed forms of quantisation error reconstruction (Zhang et al. 2024, arXiv:2410.06040)."""

from dataclasses import dataclass
from typing import ClassVar

from bridge.methods.zeroquant import THREE_BITS
from bridge.moments import shrink
from bridge.operators import LinearOperator, Weight
from bridge.quantizers import Quantizer
from bridge.reconstruct import corrected
from bridge.statistics import (
    Moment,
    SecondMoment,
    Statistic,
    diagonal_moment,
    second_moment,
)
from mech.errors import BadInput


@dataclass(frozen=True)
class QERAApproximate:
    """Ŵ + L with L D = SVD_r((W - Ŵ) D), D = diag √E[x_j²] (theorem 2).

    Least output error where the channels of x are uncorrelated.
    """

    quantizer: Quantizer = THREE_BITS
    """What leaves Ŵ."""
    rank: int = 32
    """r, of the low-rank term."""
    statistic: ClassVar[Statistic[Moment]] = diagonal_moment

    def __call__(self, weight: Weight, seen: Moment) -> LinearOperator:
        return corrected(weight, self.quantizer(weight), self.rank, seen.mean)


@dataclass(frozen=True)
class QERA:
    """Ŵ + L, L = argmin over rank r of E‖(W - Ŵ - L) x‖² with R = E[x xᵀ] (theorem 1).

    Computed as U Uᵀ (W - Ŵ) by one symmetric eigendecomposition (`bridge.reconstruct`). R is
    first shrunk, (1-s) R + s diag R: n tokens say little of d_in² correlations, and R is singular
    where n < d_in. By default s = d_in / (d_in + n), as if the diagonal had been seen on d_in
    tokens beforehand; s = 0 is the paper's form, s = 1 the diagonal one.
    """

    quantizer: Quantizer = THREE_BITS
    """What leaves Ŵ."""
    rank: int = 32
    """r, of the low-rank term."""
    shrinkage: float | None = None
    """s; None: by the number of tokens."""
    statistic: ClassVar[Statistic[SecondMoment]] = second_moment

    def __post_init__(self):
        if self.shrinkage is not None and not 0 <= self.shrinkage <= 1:
            raise BadInput(f"shrinkage {self.shrinkage}: it must be at least 0 and at most 1")

    def __call__(self, weight: Weight, seen: SecondMoment) -> LinearOperator:
        share = self.shrinkage
        if share is None:
            share = len(seen.total) / (len(seen.total) + seen.tokens)
        moment = shrink(seen.mean, share)
        return corrected(weight, self.quantizer(weight), self.rank, moment)
