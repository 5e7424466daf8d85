"""The ops on a CPU: bound and called once."""

import torch
from jaxtyping import Float
from torch import Tensor

from ctr_kernels.op import Unsupported
from ctr_kernels.sparse_gemv.prepared import WIDEST, prepare
from ctr_kernels.sparse_gemv.rows import Rows

Batch = Float[Tensor, "batch d_in"]
Thresholds = Float[Tensor, " d_in"]


def sparse_gemv(
    x: Batch, rows: Rows, threshold: Thresholds, *, deterministic: bool = True
) -> Float[Tensor, "batch d_out"]:
    """As `reference` defines it: 1 to 8 rows in float32, bfloat16 or float16."""
    return _once(x, rows, threshold, None, None)


def rsparse_gemv(
    x: Batch,
    rows: Rows,
    threshold: Thresholds,
    down: Float[Tensor, "d_in rank"],
    up: Float[Tensor, "rank d_out"],
    *,
    deterministic: bool = True,
) -> Float[Tensor, "batch d_out"]:
    """As `reference` defines it: 1 to 8 rows in float32, bfloat16 or float16."""
    return _once(x, rows, threshold, down, up)


def _once(
    x: Batch, rows: Rows, threshold: Thresholds, down: Tensor | None, up: Tensor | None
) -> Tensor:
    if x.dim() != 2 or x.shape[1] != rows.d_in:
        raise ValueError(f"x {tuple(x.shape)} for {rows.d_in} channels")
    if not 1 <= len(x) <= WIDEST:
        raise Unsupported(f"1 to {WIDEST} rows")
    bound = prepare(rows, threshold, down, up, threads=torch.get_num_threads(), x_dtype=x.dtype)
    if bound.backend == "reference":
        raise Unsupported(bound.reason)
    return bound(x.detach().contiguous())
