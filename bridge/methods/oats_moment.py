"""OATS in the metric of the whole second moment: S + L that lower the error of the outputs.

Ours, on top of Zhang and Papyan 2024 (arXiv:2409.13652), whose diagonal scaling treats channels
as uncorrelated; the mask is SparseGPT's (arXiv:2301.00774), L is reduced-rank regression.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bridge.budget import sparse_low_rank
from bridge.methods.oats import WARM, scale
from bridge.methods.sparsegpt import prune
from bridge.moments import Factor, factor, shrink
from bridge.operators import LinearOperator, LowRank, Sparse, Weight
from bridge.patterns import Mask, Score, best
from bridge.refit import Matrix, Metric, objective, refitted, regressed
from bridge.splitting import Split, Truncation
from bridge.statistics import SecondMoment, Statistic, second_moment
from mech.errors import BadInput


@dataclass(frozen=True)
class MomentOATS:
    """W ≈ S + L with tr((W - Ŵ) R (W - Ŵ)ᵀ) lowered from where OATS leaves it, at OATS' budget.

    1. OATS, by `truncation`: W D ≈ L + S with D = diag √E[x²].
    2. `masks` times: S is chosen anew by SparseGPT on W D - L, where all rows compete and what is
       left makes up for what goes, and L is regressed on the rest. Undone where f rises.
    3. `rounds` times: the values of S on its mask by `steps` conjugate-gradient steps, then L.

    f is tr((A - L - S) C (A - L - S)ᵀ) with A = W D and C = D⁻¹ ((1-s) R + s diag R) D⁻¹, damped:
    correlations of channels, shrunk by s because a few thousand tokens do not tell small ones
    from chance. Steps 2 and 3 never raise it. At `masks` = 0 S keeps OATS' mask, k in every row;
    otherwise the same number in all. Arithmetic is in float32, or the weight's format if finer.
    """

    compression: float = 0.5
    """Fraction of the parameters that is removed (ρ)."""
    rank_ratio: float = 0.25
    """Share of the kept parameters that is spent on the low-rank term (κ)."""
    iterations: int = 80
    """Alternations of OATS' definition that the start stands for."""
    truncation: Truncation = WARM
    """How OATS' iterations are computed."""
    masks: int = 2
    """How often S is chosen anew."""
    rounds: int = 2
    """Refits of the values of S and of L."""
    steps: int = 6
    """Conjugate-gradient steps in each."""
    shrinkage: float = 0.2
    """s, towards independent channels."""
    damping: float = 0.01
    """λ, raised until C factors (see `bridge.moments`)."""
    statistic: ClassVar[Statistic[SecondMoment]] = second_moment

    def __post_init__(self):
        sparse_low_rank(2, 2, compression=self.compression, rank_ratio=self.rank_ratio)
        if self.iterations < 1 or min(self.masks, self.rounds, self.steps) < 0:
            raise BadInput("iterations: at least one; masks, rounds and steps: at least none")

    def __call__(self, weight: Weight, seen: SecondMoment) -> LinearOperator:
        d_out, d_in = weight.shape
        budget = sparse_low_rank(
            d_out, d_in, compression=self.compression, rank_ratio=self.rank_ratio
        )
        columns = scale(seen.diagonal).to(weight.device)
        found = self._factor(seen, columns)
        working = torch.promote_types(weight.dtype, torch.float32)
        metric = Metric(found.moment.to(working), found.upper.to(working))
        columns = columns.to(working)
        target = weight.to(working) * columns
        split = self.truncation(
            target,
            rank=budget.rank,
            keep=budget.kept_per_row,
            iterations=self.iterations,
            scale=columns,
        )
        split = _remasked(target, split, metric, _PerRow(budget.kept_per_row, d_in), self.masks)
        split = refitted(target, split, metric, rounds=self.rounds, steps=self.steps)
        low = LowRank(split.left.to(weight.dtype), (split.right / columns).to(weight.dtype))
        operator = Sparse((split.sparse / columns).to(weight.dtype)) + low
        operator.note = "; ".join(note for note in (found.note, split.note) if note)
        return operator

    def _factor(self, seen: SecondMoment, columns: Float[Tensor, " d_in"]) -> Factor:
        moment = shrink(seen.mean.to(columns.device), self.shrinkage)
        return factor(moment / columns / columns[:, None], self.damping)


class _PerRow(NamedTuple):
    """As many of some columns as a row keeps of them on average, all entries competing."""

    kept: int
    d_in: int

    def mask(self, score: Score) -> Mask:
        return best(score.reshape(1, -1), score.numel() * self.kept // self.d_in).view(score.shape)


def _remasked(target: Matrix, split: Split, metric: Metric, kept: _PerRow, times: int) -> Split:
    def error(split: Split) -> float:
        return objective(target - split.left @ split.right - split.sparse, metric)

    lowest = error(split)
    for _ in range(times):
        columns = (target - split.left @ split.right).mT.contiguous()
        prune(columns, metric.root, kept, block=128)
        sparse = columns.mT.contiguous()
        left, right = regressed(target - sparse, metric, split.left.shape[1])
        found = split._replace(left=left, right=right, sparse=sparse)
        if not (now := error(found)) < lowest:
            return split
        split, lowest = found, now
    return split
