"""A ≈ L + S, rank(L) ≤ r, k entries a row in S: two ways to run one alternation.

`FullSVD` is the definition (Zhang and Papyan 2024, arXiv:2409.13652, algorithm 1). `WarmSubspace`
answers to it: measured, it reaches the error of the definition's iterations, from about eight of
them on, in a fraction of the time.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ctr_kernels.hard_threshold import hard_threshold

Matrix = Float[Tensor, "d_out d_in"]


class Split(NamedTuple):
    """left @ right + sparse."""

    left: Float[Tensor, "d_out rank"]
    right: Float[Tensor, "rank d_in"]
    sparse: Float[Tensor, "d_out d_in"]


@dataclass(frozen=True)
class FullSVD:
    """S₀ = 0; Lₙ = SVDᵣ(A - Sₙ₋₁); Sₙ = HT_k(A - Lₙ): a whole SVD in every iteration."""

    def __call__(
        self,
        target: Matrix,
        *,
        rank: int,
        keep: int,
        iterations: int,
        scale: Float[Tensor, " d_in"] | None = None,
    ) -> Split:
        """`iterations` rounds, in the dtype of `target`; `scale` is not needed here."""
        sparse = torch.zeros_like(target)
        left, right = target[:, :0], target[:0]
        for _ in range(iterations):
            u, s, vt = torch.linalg.svd(target - sparse, full_matrices=False)
            left, right = u[:, :rank] * s[:rank], vt[:rank]
            sparse = hard_threshold(target - left @ right, keep)
        return Split(left, right, sparse)


class _Step(NamedTuple):
    """One iteration of a schedule."""

    momentum: float
    relaxation: float
    keep: int


@dataclass(frozen=True)
class WarmSubspace:
    """The same alternation, one pass over the matrix an iteration and `acceleration` times fewer.

    The right subspace V is carried from one iteration to the next, and a step of subspace
    iteration, L = P_BV B, stands for the SVD. With Z = L + β (L - L₋), R = A - Z and S = HT(R),
    the next matrix to approximate is B = Z + η (R - S); β = 0 and η = 1 are the plain loop. β
    rises over the run, η stays at 0.93 of the stability bound (2+2β)/(1+2β), and the number of
    entries kept rises to k, so that the first low-rank terms do not chase what S will hold. The
    last iteration is plain, so L and S are consistent and the counts exact.

    If the result is not finite, or worse than one plain iteration in the scaled or in the
    unscaled norm, the plain loop is run for all its iterations instead (acceleration can blow up
    on channels that are almost dead). That is all the guard promises: in exact arithmetic a
    plain iteration never raises the scaled error, so that of what is returned is at most the
    first one's. The start is drawn from `seed`: same input, same output.
    """

    acceleration: int = 4
    """One accelerated iteration stands for this many of the definition, from FEWEST on."""
    momentum: tuple[float, float] = (0.6, 0.95)
    """β at the beginning and at the end."""
    first_kept: float = 0.4
    """Share of k that is kept at first."""
    seed: int = 0
    """Of the random subspace to start from."""

    def __call__(
        self,
        target: Matrix,
        *,
        rank: int,
        keep: int,
        iterations: int,
        scale: Float[Tensor, " d_in"] | None = None,
    ) -> Split:
        """As many iterations as stand for `iterations`; `scale` divides the columns (see guard)."""
        if rank == 0:
            return Split(target[:, :0], target[:0], hard_threshold(target, keep))
        unit = _unit(target)
        target = target / unit
        split = self._split(target, rank=rank, keep=keep, iterations=iterations, scale=scale)
        return Split(split.left * unit, split.right, split.sparse * unit)

    def _split(
        self,
        target: Matrix,
        *,
        rank: int,
        keep: int,
        iterations: int,
        scale: Float[Tensor, " d_in"] | None,
    ) -> Split:
        start = _start(target, rank, self.seed)
        steps = max(math.ceil(iterations / self.acceleration), min(iterations, FEWEST))
        first = _alternate(target, start, keep, [])
        if steps == 1:
            return first
        fast = _alternate(target, start, keep, self._schedule(steps, keep))
        if _sound(target, fast, first, scale):
            return fast
        return _alternate(target, start, keep, [_Step(0.0, 1.0, keep)] * (iterations - 1))

    def _schedule(self, steps: int, keep: int) -> list[_Step]:
        """All iterations but the last, which is plain."""
        low, high = self.momentum
        schedule = []
        for k in range(steps - 1):
            momentum = low + (high - low) * k / steps if k else 0.0
            relaxation = 0.93 * (2 + 2 * momentum) / (1 + 2 * momentum)
            ramp = min(1.0, 2 * k / (steps - 1)) ** 1.5
            share = self.first_kept + (1 - self.first_kept) * ramp
            schedule.append(_Step(momentum, relaxation, round(share * keep)))
        return schedule


Truncation = FullSVD | WarmSubspace

# Momentum needs a run-up: below this many iterations one does not stand for several.
FEWEST = 10


def _unit(target: Matrix) -> float:
    """The power of two below max |A|: divided by it, fourth powers of A stay in range, exactly."""
    largest = float(target.abs().max())
    return 2.0 ** (math.frexp(largest)[1] - 1) if 0 < largest < math.inf else 1.0


class _Subspace(NamedTuple):
    """Y = B V and Z = Bᵀ Y, all that an iteration leaves of the matrix B."""

    image: Float[Tensor, "d_out rank"]
    back: Float[Tensor, "d_in rank"]


def _start(target: Matrix, rank: int, seed: int) -> _Subspace:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(target.shape[1], rank, generator=generator).to(target)
    # One step of subspace iteration: the start is already turned towards the large directions.
    basis = _orthonormal(target.mT @ (target @ basis))
    image = target @ basis
    return _Subspace(image, target.mT @ image)


def _alternate(target: Matrix, start: _Subspace, keep: int, schedule: list[_Step]) -> Split:
    """Run `schedule`, then a plain iteration that ends it."""
    image, back = start
    before = torch.zeros_like(target)
    for step in schedule:
        right = _coefficients(image, back)
        (image, back), before = _stream(target, image, right, before, _orthonormal(back), step)
    right = _coefficients(image, back)
    return Split(image, right, hard_threshold(target - image @ right, keep))


# Rows of a block that stays in cache between the products that read and write it.
BLOCK = 256


def _stream(
    target: Matrix,
    image: Float[Tensor, "d_out rank"],
    right: Float[Tensor, "rank d_in"],
    before: Matrix,
    basis: Float[Tensor, "d_in rank"],
    step: _Step,
) -> tuple[_Subspace, Matrix]:
    """One pass over the rows: B in blocks, its products with `basis`, and L."""
    images, lows = [], []
    back = torch.zeros_like(basis)
    for rows in torch.arange(len(target)).split(BLOCK):
        block = slice(int(rows[0]), int(rows[-1]) + 1)
        low = image[block] @ right
        centre = torch.lerp(low, before[block], -step.momentum)
        residual = target[block] - centre
        residual -= hard_threshold(residual, step.keep)
        centre.add_(residual, alpha=step.relaxation)
        images.append(centre @ basis)
        back.addmm_(centre.mT, images[-1])
        lows.append(low)
    return _Subspace(torch.cat(images), back), torch.cat(lows)


def _coefficients(
    image: Float[Tensor, "d_out rank"], back: Float[Tensor, "d_in rank"]
) -> Float[Tensor, "rank d_in"]:
    """(YᵀY)⁻¹ Zᵀ, so that Y (YᵀY)⁻¹ Zᵀ is the projection of B onto the columns of Y."""
    factor = _cholesky(image)
    return torch.cholesky_solve(back.mT.double(), factor).to(image.dtype)


def _orthonormal(matrix: Float[Tensor, "rows rank"]) -> Float[Tensor, "rows rank"]:
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


def _sound(target: Matrix, fast: Split, plain: Split, scale: Float[Tensor, " d_in"] | None) -> bool:
    def errors(split: Split) -> list[float]:
        residual = target - split.left @ split.right - split.sparse
        unscaled = residual if scale is None else residual / scale
        return [float(residual.norm()), float(unscaled.norm())]

    return all(
        math.isfinite(error) and error <= bound
        for error, bound in zip(errors(fast), errors(plain), strict=True)
    )
