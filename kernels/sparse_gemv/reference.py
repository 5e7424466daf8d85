"""The definitions: a mask and dense products, in float32 (float64 for float64 inputs)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ctr_kernels.sparse_gemv.rows import Rows

Batch = Float[Tensor, "batch d_in"]
Thresholds = Float[Tensor, " d_in"]


def active(x: Batch, threshold: Thresholds) -> Bool[Tensor, "batch d_in"]:
    """m_bj = not (|x_bj| <= t_j): a NaN is kept, so that it is seen in the output.

    t_j = -1 keeps a channel always, t_j = inf never (not even an infinite x).
    """
    return ~(
        x.abs() <= threshold.to(x.dtype)
        if x.dtype == torch.float64
        else x.float().abs() <= threshold
    )


def sparse_gemv(
    x: Batch, rows: Rows, threshold: Thresholds, *, deterministic: bool = True
) -> Float[Tensor, "batch d_out"]:
    """y_b = W (m_b ∘ x_b), m_bj = 1 where |x_bj| > t_j; a row of the batch has its own mask.

    `threshold` is float32, one a channel: t / scale_j gives the rules that weigh |x_j| with a
    column scale (R-Sparse's release), one number everywhere those that do not (TEAL). Channels
    that no row keeps are not read. The result has x's dtype; sums are taken in float32 at least.
    Not `deterministic`, a kernel may add in an order that changes from run to run.
    """
    _check(x, rows, threshold)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return (_kept(x, threshold, wide) @ rows.matrix(wide)).to(x.dtype)


def rsparse_gemv(
    x: Batch,
    rows: Rows,
    threshold: Thresholds,
    down: Float[Tensor, "d_in rank"],
    up: Float[Tensor, "rank d_out"],
    *,
    deterministic: bool = True,
) -> Float[Tensor, "batch d_out"]:
    """y_b = W (m_b ∘ x_b) + A B ((1 - m_b) ∘ x_b), A = `up`ᵀ, B = `down`ᵀ.

    R-Sparse, equation 5 (Zhang et al. 2025, arXiv:2504.19449): what the mask leaves out goes
    through a low-rank stand-in for W. `down` is read for the channels left out only.
    """
    _check(x, rows, threshold)
    if down.shape != (rows.d_in, len(up)) or up.shape[1] != rows.d_out:
        raise ValueError(
            f"factors {tuple(down.shape)}, {tuple(up.shape)} of {rows.d_in} x {rows.d_out}"
        )
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    rest = torch.where(active(x, threshold), 0, x).to(wide)
    sparse = _kept(x, threshold, wide) @ rows.matrix(wide)
    return (sparse + (rest @ down.to(wide)) @ up.to(wide)).to(x.dtype)


def _kept(x: Batch, threshold: Thresholds, dtype: torch.dtype) -> Batch:
    return torch.where(active(x, threshold), x, 0).to(dtype)


def _check(x: Batch, rows: Rows, threshold: Thresholds) -> None:
    if x.dim() != 2 or x.shape[1] != rows.d_in or threshold.shape != (rows.d_in,):
        raise ValueError(
            f"x {tuple(x.shape)} and thresholds {tuple(threshold.shape)} for {rows.d_in} channels"
        )
