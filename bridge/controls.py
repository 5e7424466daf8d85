"""Controls for interventions on terms: what a finding about L or S must be told apart from."""

import torch
from jaxtyping import Float
from torch import Tensor

from bridge.methods.wanda import score
from bridge.operators import LowRank, Sparse, Weight
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
