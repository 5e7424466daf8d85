"""The best low-rank term for what a quantiser left, in the metric of the inputs."""

import torch
from jaxtyping import Float
from torch import Tensor

from bridge.operators import LinearOperator, LowRank, Weight
from mech.errors import BadInput

Metric = Float[Tensor, "d_in d_in"] | Float[Tensor, " d_in"]


def reconstructed(error: Weight, rank: int, metric: Metric | None = None) -> LowRank:
    """argmin over rank(L) <= r of tr((E - L) R (E - L)ᵀ): L = U Uᵀ E, as balanced factors.

    U holds the top r left singular vectors of E C, R = C Cᵀ for any C: the eigenvectors of
    E R Eᵀ. With R = E[x xᵀ] the minimum is of the mean squared output error E‖(E - L) x‖².
    No root of R and no inverse is taken, so that a singular R is no special case: QERA's A B with
    R^½ and its inverse (Zhang et al. 2024, arXiv:2410.06040, theorem 1) is the same matrix where
    R is regular. Where d_out > d_in the eigenvectors are those of Cᵀ Eᵀ E C, the smaller side.

    `error`: E, [d_out, d_in]. `metric`: R, a vector for a diagonal one, None for the identity.
    Arithmetic is in float64; the factors have E's format, rank min(r, d_out, d_in), and columns
    of `left` as long as rows of `right`. Raises BadInput where r < 0 or E or R is not finite.
    """
    if rank < 0:
        raise BadInput(f"rank {rank}: at least 0")
    wide = error.detach().double()
    rank = min(rank, *error.shape)
    if rank == 0:
        return LowRank(error[:, :0], error[:0])
    left = _top_left(wide, rank, None if metric is None else metric.to(wide))
    return balanced(left, left.mT @ wide, error.dtype)


def balanced(
    left: Float[Tensor, "d_out rank"], right: Float[Tensor, "rank d_in"], dtype: torch.dtype
) -> LowRank:
    """U √Σ and √Σ Vᵀ of right = P Σ Vᵀ with U = left P: one length on both sides.

    `left` has orthonormal columns. A half-precision format rounds both factors alike, and both
    learn at one rate where they initialise an adapter.
    """
    gram = right @ right.mT
    squares, turn = torch.linalg.eigh(gram)
    root = squares.clamp_min(0).sqrt().sqrt()
    # A direction without energy: its row of `right` is zero, and what it is divided by is free.
    over = torch.where(root > 0, root, 1)
    return LowRank((left @ turn * root).to(dtype), (turn.mT @ right / over[:, None]).to(dtype))


def _top_left(error: Weight, rank: int, metric: Metric | None) -> Float[Tensor, "d_out rank"]:
    """Orthonormal columns that span the top r left singular vectors of E C."""
    if not bool(error.isfinite().all()):
        raise BadInput("the error of a quantised weight is not finite; check the weight")
    if metric is not None and not bool(metric.isfinite().all()):
        raise BadInput("a second moment is not finite; try bfloat16 or float32")
    d_out, d_in = error.shape
    if d_out > d_in:
        root = _root(metric)
        if root is not None or metric is None:
            return _by_columns(error, rank, root)
    return _top(_times(error, metric) @ error.mT, rank)


def _times(error: Weight, metric: Metric | None) -> Weight:
    if metric is None:
        return error
    return error @ metric if metric.ndim == 2 else error * metric


def _root(metric: Metric | None) -> Metric | None:
    """C of R = C Cᵀ; None where R is the identity, or is singular and has no Cholesky factor."""
    if metric is None or metric.ndim == 1:
        return None if metric is None else metric.sqrt()
    factor, failed = torch.linalg.cholesky_ex(metric)
    return None if failed else factor


def _by_columns(error: Weight, rank: int, root: Metric | None) -> Float[Tensor, "d_out rank"]:
    """E C V of the top eigenvectors V of CᵀEᵀE C, made orthonormal."""
    scaled = _times(error, root)
    return torch.linalg.qr(scaled @ _top(scaled.mT @ scaled, rank)).Q


def _top(gram: Float[Tensor, "n n"], rank: int) -> Float[Tensor, "n rank"]:
    return torch.linalg.eigh(gram).eigenvectors[:, -rank:]


def remainder(
    weight: Weight, quantized: LinearOperator, rank: int, metric: Metric | None = None
) -> LowRank:
    """The best L of that rank for W - Ŵ in the metric, in W's format."""
    # Of float32 numbers the difference is taken in float64: near a grid value little is left.
    error = weight.detach().double() - quantized.dense().double()
    term = reconstructed(error, rank, metric)
    return LowRank(term.left.to(weight.dtype), term.right.to(weight.dtype))


def corrected(
    weight: Weight, quantized: LinearOperator, rank: int, metric: Metric | None = None
) -> LinearOperator:
    """Ŵ + L, L the best of that rank for W - Ŵ in the metric; Ŵ alone at rank 0."""
    return quantized + remainder(weight, quantized, rank, metric) if rank else quantized
