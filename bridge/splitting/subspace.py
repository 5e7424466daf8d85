"""Subspace iteration that is carried along: what an iteration keeps of B, and how it moves on."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bridge.splitting.split import Matrix
from ctr_kernels.over_relax import over_relax

# Entries of a block of rows: its L stays in a cache until it is used.
BLOCK = 1 << 19
# Random directions to start from, beyond the rank.
MORE = 8


class Step(NamedTuple):
    """One iteration of a schedule; `coarse`: its products may be taken in bfloat16."""

    momentum: float
    relaxation: float
    keep: int
    coarse: bool = False


class Subspace(NamedTuple):
    """Y = B V and Z = Bᵀ Y, all that an iteration leaves of the matrix B."""

    image: Float[Tensor, "d_out rank"]
    back: Float[Tensor, "d_in rank"]

    def right(self) -> Float[Tensor, "rank d_in"]:
        """(YᵀY)⁻¹ Zᵀ, so that Y (YᵀY)⁻¹ Zᵀ is the projection of B onto the columns of Y."""
        factor = _cholesky(self.image.double())
        return torch.cholesky_solve(self.back.mT.double(), factor).to(self.back)

    def roughly_right(self) -> Float[Tensor, "rank d_in"]:
        """As `right`, with products in the dtype of Y: for an A without dominating directions."""
        factor = _cholesky(self.image)
        return torch.cholesky_inverse(factor).to(self.back) @ self.back.mT


def start(target: Matrix, rank: int, seed: int) -> Subspace:
    """Of B = A: the `rank` largest Ritz directions of a few more random ones, after one power step.

    A start that misses a large direction of a matrix of rank 2 or 3 can end in another minimum.
    """
    drawn = min(rank + MORE, *target.shape)
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(target.shape[1], drawn, generator=generator).to(target)
    image = target @ orthonormal(target.mT @ (target @ directions))
    wide = image.double()
    _, rotation = torch.linalg.eigh(wide.mT @ wide)
    image = (wide @ rotation[:, drawn - rank :]).to(target)
    return Subspace(image, target.mT @ image)


class Stream:
    """The passes over a matrix A, with memory for two more: L, and the L before, which B takes.

    `of`: entries that compete with each other, consecutive ones; None: those of a row.
    """

    def __init__(self, target: Matrix, of: int | None = None):
        self.target = target.contiguous()
        self.of = of or target.shape[1]
        self.before = self.low = target[:0]

    def advance(self, space: Subspace, step: Step) -> Subspace:
        """One pass: L of the subspace, B of the step, and Y, Z of that B for the next V.

        V is a basis of the columns of Z. In a coarse step it is that of `right`, which has
        VᵀV₊ = 1 and so stays well conditioned where A is not dominated by a few directions; else
        it is orthonormal, and Gram matrices are in float64. What is not finite stays so, and is
        seen at the end.
        """
        dtype = torch.bfloat16 if step.coarse else self.target.dtype
        self._make_room(dtype)
        right = space.roughly_right() if step.coarse else space.right()
        basis = right.mT if step.coarse else orthonormal(space.back)
        left, right, basis = space.image.to(dtype), right.to(dtype), basis.to(dtype)
        rows = max(1, BLOCK // self.target.shape[1])
        for first in range(0, len(self.target), rows):
            at = slice(first, first + rows)
            torch.mm(left[at], right, out=self.low[at])
            over_relax(
                self.target[at].view(-1, self.of),
                self.low[at].view(-1, self.of),
                self.before[at].view(-1, self.of),
                step.keep,
                step.momentum,
                step.relaxation,
            )
        relaxed, self.before, self.low = self.before, self.low, self.before
        image = relaxed @ basis
        back = relaxed.mT @ image
        return Subspace(image.to(self.target.dtype), back.to(self.target.dtype))

    def _make_room(self, dtype: torch.dtype) -> None:
        if self.before.dtype != dtype or len(self.before) != len(self.target):
            before, shape = self.before.to(dtype), self.target.shape
            self.before = before if before.shape == shape else before.new_zeros(shape)
            self.low = torch.empty_like(self.before)


def orthonormal(matrix: Float[Tensor, "rows rank"]) -> Float[Tensor, "rows rank"]:
    """A basis of the columns: Q = M C⁻ᵀ with MᵀM = C Cᵀ."""
    wide = matrix.double()
    factor = _cholesky(wide)
    basis = torch.linalg.solve_triangular(factor.mT, wide, upper=True, left=False)
    return basis.to(matrix.dtype)


def _cholesky(matrix: Float[Tensor, "rows rank"]) -> Float[Tensor, "rank rank"]:
    """C of MᵀM = C Cᵀ, in float64, columns brought to unit norm first.

    Callers hand over M in float64 where its entries are of many orders: a channel a thousand
    times larger than the others puts the rest below the rounding of a float32 square. The
    relative shift of 1e-14, the rounding of float32 squared, keeps a rank-deficient M
    factorable: a direction that is lost in the rounding of M stays short instead of becoming
    noise of full length. NaN where M is not finite.
    """
    gram = (matrix.mT @ matrix).double()
    norms = gram.diagonal().sqrt().clamp_min(1e-60)
    unit = gram / norms / norms[:, None]
    for shift in (1e-14, 1e-11, 1e-6):
        unit.diagonal().add_(shift)
        factor, failed = torch.linalg.cholesky_ex(unit)
        if not failed:
            return factor * norms[:, None]
    return torch.full_like(unit, torch.nan)
