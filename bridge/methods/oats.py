"""OATS: outlier-aware sparse plus low rank (Zhang and Papyan 2024, arXiv:2409.13652)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from bridge.budget import SparseLowRank, grouped_low_rank, sparse_low_rank
from bridge.operators import LinearOperator, LowRank, Sparse, Weight
from bridge.patterns import NOfM
from bridge.splitting import Truncation, WarmSubspace
from bridge.statistics import Moment, Statistic, diagonal_moment
from mech.errors import BadInput

WARM = WarmSubspace()


def scale(seen: Moment) -> Float[Tensor, " d_in"]:
    """√E[x²], no smaller than 1e-4 of its median over the channels that are not dead.

    A dead channel (E[x²] = 0) would be divided by zero when the scale is undone, an almost dead
    one would amplify what the low-rank term leaves on it. With no live channel: all ones.
    """
    root = seen.mean.sqrt()
    alive = root[root > 0]
    if not len(alive):
        return root.new_ones(root.shape)
    return root.clamp_min(1e-4 * alive.median())


@dataclass(frozen=True)
class OATS:
    """W D ≈ L + S with D = diag √E[x²], by alternating SVDᵣ and HT_k; Ŵ = (L + S) D⁻¹.

    The SVD step comes first and the scale is undone once, at the end. Arithmetic is in float32.
    HT_k keeps the k largest of every row, or `groups.keep` of every `groups.of` consecutive ones:
    S then has N/M of the entries, and ρ is no free number but 1 - (N/M) / (1-κ) (`OATS.n_of_m`).
    Raises BadInput where `compression` is another.
    """

    compression: float = 0.5
    """Fraction of the parameters that is removed (ρ in the paper)."""
    rank_ratio: float = 0.25
    """Share of the kept parameters that is spent on the low-rank term (κ)."""
    iterations: int = 80
    """Alternations of the definition, whose error `truncation` has to reach."""
    truncation: Truncation = WARM
    """How an iteration is computed: FullSVD (the definition) or WarmSubspace (fast)."""
    groups: NOfM | None = None
    """N of M for S: keep N, of M."""
    statistic: ClassVar[Statistic[Moment]] = diagonal_moment

    def __post_init__(self):
        sparse_low_rank(2, 2, compression=self.compression, rank_ratio=self.rank_ratio)
        if self.iterations < 1:
            raise BadInput(f"iterations {self.iterations}: at least one")
        if self.groups is not None:
            follows = 1 - self.groups.density / (1 - self.rank_ratio)
            if abs(follows - self.compression) > 1e-6:
                raise BadInput(
                    f"compression {self.compression}: {self.groups} and a rank_ratio of "
                    f"{self.rank_ratio} make it {follows:.6g}"
                )

    @classmethod
    def n_of_m(cls, keep: int, of: int, *, rank_ratio: float = 0.25, **more: Any) -> "OATS":
        """S keeps `keep` of every `of`, and κ of all that is kept is low rank; `more`: fields."""
        groups = NOfM(keep, of)
        density = groups.density / (1 - rank_ratio) if rank_ratio < 1 else 0.5
        return cls(compression=1 - density, rank_ratio=rank_ratio, groups=groups, **more)

    def budget(self, d_out: int, d_in: int) -> SparseLowRank:
        """What a matrix of that shape gets. Raises BadInput where rows do not split into groups."""
        if self.groups is not None:
            return grouped_low_rank(d_out, d_in, groups=self.groups, rank_ratio=self.rank_ratio)
        return sparse_low_rank(
            d_out, d_in, compression=self.compression, rank_ratio=self.rank_ratio
        )

    def __call__(self, weight: Weight, seen: Moment) -> LinearOperator:
        budget = self.budget(*weight.shape)
        columns = scale(seen).to(weight.device, weight.float().dtype)
        split = self.truncation(
            weight.float() * columns,
            rank=budget.rank,
            keep=budget.kept_per_row if self.groups is None else self.groups.keep,
            iterations=self.iterations,
            scale=columns,
            of=None if self.groups is None else self.groups.of,
        )
        low = LowRank(split.left.to(weight.dtype), (split.right / columns).to(weight.dtype))
        operator = Sparse((split.sparse / columns).to(weight.dtype)) + low
        operator.note = split.note
        return operator
