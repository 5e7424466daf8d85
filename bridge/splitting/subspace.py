"""Subspace iteration that is carried along: what an iteration keeps of B, and how it moves on."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bridge.splitting.split import Matrix
from ctr_kernels.over_relax import over_relax

# Entries of a block of rows: its L and B stay in a cache between the products that need them.
BLOCK = 1 << 21


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

    def basis(self) -> Float[Tensor, "d_in rank"]:
        """The next V: an orthonormal basis of the columns of Z."""
        return orthonormal(self.back)

    def right(self) -> Float[Tensor, "rank d_in"]:
        """(YᵀY)⁻¹ Zᵀ, so that Y (YᵀY)⁻¹ Zᵀ is the projection of B onto the columns of Y."""
        return torch.cholesky_solve(self.back.mT.double(), _cholesky(self.image)).to(self.back)


def start(target: Matrix, rank: int, seed: int) -> Subspace:
    """Of B = A, from random directions after one step of subspace iteration."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(target.shape[1], rank, generator=generator).to(target)
    basis = orthonormal(target.mT @ (target @ directions))
    image = target @ basis
    return Subspace(image, target.mT @ image)


class Stream:
    """The passes over one matrix: A, the L before, and the memory for the next one."""

    def __init__(self, target: Matrix):
        self.target = target
        self.before = torch.zeros_like(target)
        self.low = torch.empty_like(target)

    def advance(self, space: Subspace, step: Step) -> Subspace:
        """One pass over the rows: L of the subspace, B of the step, and Y, Z of that B.

        Raises nothing: what is not finite stays so, and is seen at the end.
        """
        dtype = torch.bfloat16 if step.coarse else self.target.dtype
        if self.before.dtype != dtype:
            self.before, self.low = self.before.to(dtype), self.low.to(dtype)
        right, basis = space.right().to(dtype), space.basis().to(dtype)
        left = space.image.to(dtype)
        back = torch.zeros_like(space.back)
        images = []
        rows = max(1, BLOCK // self.target.shape[1])
        for first in range(0, len(self.target), rows):
            at = slice(first, first + rows)
            torch.mm(left[at], right, out=self.low[at])
            block = over_relax(
                self.target[at],
                self.low[at],
                self.before[at],
                step.keep,
                step.momentum,
                step.relaxation,
            )
            images.append(block @ basis)
            back += block.mT @ images[-1]
        self.low, self.before = self.before, self.low
        return Subspace(torch.cat(images).to(self.target.dtype), back)


def orthonormal(matrix: Float[Tensor, "rows rank"]) -> Float[Tensor, "rows rank"]:
    """A basis of the columns: Q = M C⁻ᵀ with MᵀM = C Cᵀ."""
    factor = _cholesky(matrix)
    basis = torch.linalg.solve_triangular(factor.mT, matrix.double(), upper=True, left=False)
    return basis.to(matrix.dtype)


def _cholesky(matrix: Float[Tensor, "rows rank"]) -> Float[Tensor, "rank rank"]:
    """C of MᵀM = C Cᵀ, in float64, columns brought to unit norm first.

    MᵀM itself is taken in float64: a channel a thousand times larger than the others puts the
    rest below the rounding of a float32 square. The relative shift of 1e-14, the rounding of
    float32 squared, keeps a rank-deficient M factorable: a direction that is lost in the
    rounding of M stays short instead of becoming noise of full length. NaN where M is not
    finite.
    """
    gram = matrix.mT.double() @ matrix.double()
    norms = gram.diagonal().sqrt().clamp_min(1e-60)
    unit = gram / norms / norms[:, None]
    for shift in (1e-14, 1e-11):
        unit.diagonal().add_(shift)
        factor, failed = torch.linalg.cholesky_ex(unit)
        if not failed:
            return factor * norms[:, None]
    return torch.full_like(unit, torch.nan)
