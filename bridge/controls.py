"""Controls for interventions on terms: what a finding about L or S must be told apart from."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bridge.methods.wanda import score
from bridge.operators import Dense, LowRank, Sparse, Weight
from bridge.patterns import best_of_each
from bridge.statistics import Moment


def random_low_rank_like(
    term: LowRank,
    generator: torch.Generator,
    *,
    scale: Float[Tensor, " d_in"] | None = None,
) -> LowRank:
    """G₁ G₂ D⁻¹, Gaussian, of the rank of `term` and of its norm ‖L D‖_F, D = diag `scale`.

    Without `scale`, D = 1 and the plain Frobenius norms agree. The draw is made on the CPU, so a
    seed gives the same term on every device.
    """
    left, right = term.left.double(), term.right.double()
    columns = torch.ones_like(right[0]) if scale is None else scale.to(right)
    noise_left = torch.randn(left.shape, generator=generator, dtype=torch.float64).to(left)
    noise_right = torch.randn(right.shape, generator=generator, dtype=torch.float64).to(right)
    size = factored_norm(left, right * columns) / factored_norm(noise_left, noise_right)
    return LowRank(
        (noise_left * size).to(term.left.dtype), (noise_right / columns).to(term.right.dtype)
    )


def permuted_like(
    term: LowRank,
    generator: torch.Generator,
    *,
    side: Literal["left", "right"],
    scale: Float[Tensor, " d_in"] | None = None,
) -> LowRank:
    """Π U V ("left") or U V D Π D⁻¹ ("right") with a random permutation Π, D = diag `scale`.

    The rows of U, or the columns of V D, in another order: every singular value of the scaled
    term L D stays, and on the side that is not permuted every direction too. Where Π U V does as
    badly as a random term, it is the outputs that L writes to which matter; where U V D Π D⁻¹
    does, the inputs that it reads.
    """
    left, right = term.left, term.right
    if side == "left":
        order = torch.randperm(left.shape[0], generator=generator).to(left.device)
        return LowRank(left[order], right)
    columns = torch.ones_like(right[0]).double() if scale is None else scale.to(right.device)
    order = torch.randperm(right.shape[1], generator=generator).to(right.device)
    moved = (right.double() * columns)[:, order] / columns
    return LowRank(left, moved.to(right.dtype))


def without_top(weight: Weight, rank: int, *, scale: Float[Tensor, " d_in"]) -> Dense:
    """W - SVDᵣ(W D) D⁻¹, D = diag `scale`: the r largest components of the scaled matrix gone."""
    columns = scale.double().to(weight.device)
    u, s, v = torch.linalg.svd(weight.double() * columns, full_matrices=False)
    top = (u[:, :rank] * s[:rank]) @ v[:rank] / columns
    return Dense((weight.double() - top).to(weight.dtype))


def without_random_outputs(weight: Weight, rank: int, generator: torch.Generator) -> Dense:
    """(1 - Q Qᵀ) W with Q a random orthonormal basis of r of the d_out output directions.

    It has the rank of what `without_top` takes and much less of its norm: r / d_out of ‖W D‖²,
    in the mean. Rank alone is no match for the amount: `random_low_rank_like` is.
    """
    noise = torch.randn(weight.shape[0], rank, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(noise).Q.to(weight.device)
    return Dense((weight.double() - basis @ (basis.mT @ weight.double())).to(weight.dtype))


def sparse_as_far(other: Weight, weight: Weight, seen: Moment) -> Sparse:
    """Wanda's matrix with the fewest entries of every row that is no further from W than `other`.

    Further: in ‖(w - ŵ) D‖ of the row, D = diag √E[x²]. Matched is how much was removed, by the
    measure that Wanda minimises, and not how many entries stay. Zeros of `weight` are never
    among the kept.
    """
    ranked = score(weight, seen)
    root = seen.mean.sqrt().to(weight.device)
    allowed = ((weight.double() - other.double()) * root).square().sum(1, keepdim=True)
    # From the smallest up: what is gone once the j + 1 smallest of the row are.
    gone = ranked.sort(dim=1).values.double().square().cumsum(1)
    # The squares of the scores are those of a float32 product; equal sums must not lose an entry.
    dropped = (gone <= allowed * (1 + 1e-6)).sum(1)
    kept = torch.minimum(weight.shape[1] - dropped, weight.count_nonzero(dim=1))
    mask = best_of_each(ranked.masked_fill(weight == 0, -1.0), kept)
    return Sparse(torch.where(mask, weight, 0))


def removed(other: Weight, weight: Weight, *, scale: Float[Tensor, " d_in"]) -> float:
    """‖(W - Ŵ) D‖² / ‖W D‖², D = diag `scale`: which share of the scaled matrix is gone.

    Above 1 where what stands there instead is further from W than nothing would be; NaN for W = 0.
    """
    columns = scale.double().to(weight.device)
    whole = (weight.double() * columns).square().sum()
    return float(((weight.double() - other.double()) * columns).square().sum() / whole)


def sparse_like(term: Sparse, weight: Weight, seen: Moment) -> Sparse:
    """Wanda's matrix with, in every row, exactly as many nonzeros as `term` has there.

    Where `term` is the S of OATS this is the sparse-only control of equal S: the same places to
    fill and no low-rank term to rest on. Zeros of `weight` are never among the kept.
    """
    ranked = score(weight, seen).masked_fill(weight == 0, -1.0)
    mask = best_of_each(ranked, term.weight.count_nonzero(dim=1))
    return Sparse(torch.where(mask, weight, 0))


def factored_norm(
    left: Float[Tensor, "d_out rank"], right: Float[Tensor, "rank d_in"]
) -> Float[Tensor, ""]:
    """‖left right‖_F = √ tr(LᵀL · RRᵀ), without the product."""
    return ((left.mT @ left) * (right @ right.mT)).sum().clamp_min(0).sqrt()
