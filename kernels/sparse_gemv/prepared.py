"""A sparse product bound to its weights: everything is checked once, a call only computes."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ctr_kernels.op import Backend
from ctr_kernels.sparse_gemv.reference import rsparse_gemv, sparse_gemv
from ctr_kernels.sparse_gemv.rows import Rows

WIDEST_BATCH = 8
"""More rows than these are a dense product's work."""


@dataclass
class Prepared:
    """y_b = W (m_b ∘ x_b) + A B ((1 - m_b) ∘ x_b) + bias for x [*, d_in] of 1 to 8 rows in all.

    More rows are the definition's. `backend` computes; "reference" where none could be bound, and
    `reason` says why.
    """

    rows: Rows
    threshold: Tensor
    down: Tensor | None
    up: Tensor | None
    bias: Tensor | None
    backend: Backend = "reference"
    reason: str = ""
    threads: int = 1

    def __call__(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        return self.definition(x)

    def definition(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """The same by mask and dense products, of any number of rows."""
        flat = x.reshape(-1, self.rows.d_in)
        if self.down is None or self.up is None:
            y = sparse_gemv(flat, self.rows, self.threshold)
        else:
            y = rsparse_gemv(flat, self.rows, self.threshold, self.down, self.up)
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        return y.view(*x.shape[:-1], self.rows.d_out)


def prepare(
    rows: Rows,
    threshold: Float[Tensor, " d_in"],
    down: Float[Tensor, "d_in rank"] | None = None,
    up: Float[Tensor, "rank d_out"] | None = None,
    bias: Float[Tensor, " d_out"] | None = None,
    *,
    threads: int | None = None,
    x_dtype: torch.dtype | None = None,
) -> Prepared:
    """`sparse_gemv`, or with `down` and `up` `rsparse_gemv`, bound to all its arguments but x.

    `threads`: None reads torch's number. `x_dtype`: of the inputs to come (None: that of float
    rows, float32 for codes). Raises ValueError where the shapes do not go together.
    """
    if (down is None) != (up is None):
        raise ValueError("factors: `down` and `up` go together")
    probe = torch.zeros(1, rows.d_in, dtype=x_dtype or torch.float32, device=rows.device)
    if down is not None and up is not None:
        rsparse_gemv(probe[:0], rows, threshold, down, up)
    else:
        sparse_gemv(probe[:0], rows, threshold)
    return Prepared(rows, threshold, down, up, bias, "reference", "not bound yet", threads or 1)
