"""Sparse alone, at its best: SparseGPT's mask, and the values refitted to it. A baseline."""

from dataclasses import dataclass
from typing import ClassVar

from bridge.methods.oats_moment import MomentOATS
from bridge.operators import LinearOperator, Sparse, Weight
from bridge.statistics import SecondMoment, Statistic, second_moment


@dataclass(frozen=True)
class SparseOnly:
    """`MomentOATS` without its low-rank term: the same mask, metric and refit, the whole budget.

    What second-moment OATS gains over this is what low rank gives at equal budget; what this
    gains over SparseGPT is what the refit gives.
    """

    compression: float = 0.5
    """Fraction of the parameters that is removed (ρ)."""
    steps: int = 12
    """Conjugate-gradient steps on the values."""
    shrinkage: float = 0.2
    """s, of R towards its diagonal."""
    damping: float = 0.01
    """λ, raised until R factors."""
    statistic: ClassVar[Statistic[SecondMoment]] = second_moment

    def __post_init__(self):
        self._refit()

    def __call__(self, weight: Weight, seen: SecondMoment) -> LinearOperator:
        both = self._refit()(weight, seen)
        operator = Sparse(both.dense())
        operator.note = both.note
        return operator

    def _refit(self) -> MomentOATS:
        return MomentOATS(
            compression=self.compression,
            rank_ratio=0.0,
            masks=1,
            rounds=1,
            steps=self.steps,
            shrinkage=self.shrinkage,
            damping=self.damping,
        )
