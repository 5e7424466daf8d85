"""LQER: low-rank quantisation error reconstruction (Zhang et al. 2024, arXiv:2402.02446)."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bridge.methods.zeroquant import THREE_BITS
from bridge.operators import LinearOperator, Weight
from bridge.quantizers import Quantizer
from bridge.reconstruct import corrected
from bridge.statistics import Inputs, Statistic


class Magnitudes(NamedTuple):
    """Σ_t |x_tj| over `tokens` tokens, one entry a channel j, in float64."""

    total: Float[Tensor, " d_in"]
    tokens: int

    @property
    def mean(self) -> Float[Tensor, " d_in"]:
        """E|x_j| over tokens."""
        return self.total / self.tokens


def _absolute_sum(seen: Magnitudes, x: Inputs) -> Magnitudes:
    total = x.detach().double().abs().sum(0)
    return Magnitudes(seen.total.to(total.device) + total, seen.tokens + len(x))


mean_magnitude = Statistic(
    init=lambda d_in: Magnitudes(torch.zeros(d_in, dtype=torch.float64), 0),
    update=_absolute_sum,
    merge=lambda a, b: Magnitudes(a.total + b.total.to(a.total.device), a.tokens + b.tokens),
)


@dataclass(frozen=True)
class LQER:
    """Ŵ + L with L D = SVD_r((W - Ŵ) D), D = diag E|x_j|.

    The mean is over all tokens, so that batches do not matter; the release takes the largest of
    the means of its batches. Its division of D by √(min · max) cancels in L, and its lower bound
    of 1e-4 on D is not needed, since D is never inverted (`bridge.reconstruct`).
    """

    quantizer: Quantizer = THREE_BITS
    """What leaves Ŵ."""
    rank: int = 32
    """r, of the low-rank term."""
    statistic: ClassVar[Statistic[Magnitudes]] = mean_magnitude

    def __call__(self, weight: Weight, seen: Magnitudes) -> LinearOperator:
        return corrected(weight, self.quantizer(weight), self.rank, seen.mean.square())
