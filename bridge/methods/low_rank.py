"""Low rank alone: the whole budget in two factors, in each of three metrics. Baselines."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from bridge.methods.oats import scale
from bridge.moments import factor
from bridge.operators import LinearOperator, LowRank, Weight
from bridge.patterns import exact
from bridge.refit import Metric, regressed
from bridge.statistics import (
    Count,
    Moment,
    SecondMoment,
    Statistic,
    diagonal_moment,
    nothing,
    second_moment,
)
from mech.errors import BadInput


def rank_within(d_out: int, d_in: int, *, compression: float) -> int:
    """r = ⌊(1-ρ) d_out d_in / (d_out + d_in)⌋: both factors within the budget.

    Raises BadInput where ρ is outside (0, 1).
    """
    if not 0 < compression < 1:
        raise BadInput(f"compression {compression}: it must be above 0 and below 1")
    return int((1 - exact(compression)) * d_out * d_in / (d_out + d_in))


@dataclass(frozen=True)
class PlainLowRank:
    """The L of rank r nearest to W: its truncated SVD (Eckart and Young 1936)."""

    compression: float = 0.5
    """Fraction of the parameters that is removed (ρ)."""
    statistic: ClassVar[Statistic[Count]] = nothing

    def __post_init__(self):
        rank_within(2, 2, compression=self.compression)

    def __call__(self, weight: Weight, seen: Count) -> LinearOperator:
        return _scaled(weight, torch.ones(weight.shape[1]), self.compression)


@dataclass(frozen=True)
class ScaledLowRank:
    """L D nearest to W D, D = diag √E[x²]: channels as if they were uncorrelated."""

    compression: float = 0.5
    """Fraction of the parameters that is removed (ρ)."""
    statistic: ClassVar[Statistic[Moment]] = diagonal_moment

    def __post_init__(self):
        rank_within(2, 2, compression=self.compression)

    def __call__(self, weight: Weight, seen: Moment) -> LinearOperator:
        return _scaled(weight, scale(seen), self.compression)


@dataclass(frozen=True)
class MomentLowRank:
    """The L of rank r with the least tr((W - L) R (W - L)ᵀ): U Uᵀ W, U on top in W R Wᵀ.

    The outputs of the calibration text cannot be nearer at this rank. R is damped for its factor.
    """

    compression: float = 0.5
    """Fraction of the parameters that is removed (ρ)."""
    damping: float = 1e-6
    """λ, raised until R factors (see `bridge.moments`)."""
    statistic: ClassVar[Statistic[SecondMoment]] = second_moment

    def __post_init__(self):
        rank_within(2, 2, compression=self.compression)

    def __call__(self, weight: Weight, seen: SecondMoment) -> LinearOperator:
        # In float64: R is squared where a massive channel is a thousand times the others.
        found = factor(seen.mean.to(weight.device), self.damping)
        rank = rank_within(*weight.shape, compression=self.compression)
        # Of a dead channel the factor holds a number that was made up: no rank is spent on it.
        live = weight.double().masked_fill(found.dead, 0)
        left, right = regressed(live, Metric(found.moment, found.upper), rank)
        operator = LowRank(left.to(weight.dtype), right.to(weight.dtype))
        operator.note = found.note
        return operator


def _scaled(weight: Weight, columns: Float[Tensor, " d_in"], compression: float) -> LowRank:
    rank = rank_within(*weight.shape, compression=compression)
    working = torch.promote_types(weight.dtype, torch.float32)
    columns = columns.to(weight.device, working)
    u, s, vt = torch.linalg.svd(weight.to(working) * columns, full_matrices=False)
    left, right = u[:, :rank] * s[:rank], vt[:rank] / columns
    return LowRank(left.to(weight.dtype), right.to(weight.dtype))
