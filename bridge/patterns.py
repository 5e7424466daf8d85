"""Which entries survive, and who competes with whom.

The papers prune int(d_in · sparsity) entries of a row, so kept = d_in - ⌊d_in · sparsity⌋. Here
the product is taken of the decimal that was written, not of its nearest float: a sparsity of
0.1 prunes exactly one of ten. Of equal scores the lower index stays.
"""

from dataclasses import dataclass
from fractions import Fraction

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mech.errors import BadInput

Score = Float[Tensor, "d_out d_in"]
Mask = Bool[Tensor, "d_out d_in"]


def exact(fraction: float) -> Fraction:
    """The decimal that was written: exact(0.1) = 1/10.

    Examples:
        >>> exact(0.1), 0.1.as_integer_ratio()
        (Fraction(1, 10), (3602879701896397, 36028797018963968))
    """
    return Fraction(str(fraction))


def best(score: Float[Tensor, "rows d_in"], kept: int) -> Bool[Tensor, "rows d_in"]:
    """The `kept` highest scores of each row; of equals the lower index. Scores are finite.

    Examples:
        >>> best(torch.tensor([[1.0, 3.0, 2.0, 3.0]]), 2).tolist()
        [[False, True, False, True]]
    """
    if kept == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    threshold = score.kthvalue(score.shape[1] - kept + 1, dim=1, keepdim=True).values
    above, tied = score > threshold, score == threshold
    return above | (tied & (tied.cumsum(1) <= kept - above.sum(1, keepdim=True)))


def best_of_each(
    score: Float[Tensor, "rows d_in"], kept: Int[Tensor, " rows"]
) -> Bool[Tensor, "rows d_in"]:
    """As `best`, with a count of its own for every row."""
    rank = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return rank < kept[:, None]


@dataclass(frozen=True)
class RowWise:
    """The best of every row: one output's weights compete with each other.

    Examples:
        >>> RowWise(0.5).mask(torch.tensor([[1.0, 4.0], [3.0, 2.0]])).tolist()
        [[False, True], [True, False]]
    """

    density: float

    def __post_init__(self):
        _check_density(self.density)

    def kept(self, d_out: int, d_in: int) -> int:
        """Entries kept of a matrix."""
        return d_out * _kept(d_in, self.density)

    def mask(self, score: Score) -> Mask:
        return best(score, _kept(score.shape[1], self.density))


@dataclass(frozen=True)
class LayerWise:
    """The best of the whole matrix.

    Examples:
        >>> LayerWise(0.5).mask(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
        [[False, False], [True, True]]
    """

    density: float

    def __post_init__(self):
        _check_density(self.density)

    def kept(self, d_out: int, d_in: int) -> int:
        """Entries kept of a matrix."""
        return _kept(d_out * d_in, self.density)

    def mask(self, score: Score) -> Mask:
        return best(score.reshape(1, -1), _kept(score.numel(), self.density)).reshape(score.shape)


@dataclass(frozen=True)
class NOfM:
    """The best `keep` of every `of` consecutive entries of a row: NOfM(2, 4) is hardware 2:4.

    Kept, not pruned: "1:4" prunes one in Wanda's release and keeps one in that of OATS.

    Examples:
        >>> NOfM(keep=2, of=4).mask(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).tolist()
        [[False, False, True, True]]
    """

    keep: int
    of: int

    def __post_init__(self):
        if not 0 < self.keep < self.of:
            raise BadInput(f"NOfM(keep={self.keep}, of={self.of}): keep must be in 1..of-1")

    @property
    def density(self) -> float:
        """keep / of."""
        return self.keep / self.of

    def kept(self, d_out: int, d_in: int) -> int:
        """Entries kept of a matrix. Raises BadInput where rows do not split into groups."""
        if d_in % self.of:
            raise BadInput(f"rows of {d_in} do not split into groups of {self.of}")
        return d_out * d_in // self.of * self.keep

    def mask(self, score: Score) -> Mask:
        self.kept(*score.shape)
        return best(score.reshape(-1, self.of), self.keep).reshape(score.shape)


Pattern = RowWise | LayerWise | NOfM


def _check_density(density: float) -> None:
    if not 0 < density < 1:
        raise BadInput(f"density {density}: it must be above 0 and below 1")


def _kept(size: int, density: float) -> int:
    return size - int(size * (1 - exact(density)))
