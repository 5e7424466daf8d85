"""A sparse product bound to its weights: everything is checked once, a call only computes."""

import copy
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ctr_kernels.op import Backend, Unsupported
from ctr_kernels.sparse_gemv.reference import rsparse_gemv, sparse_gemv
from ctr_kernels.sparse_gemv.rows import Rows

WIDEST = 8
"""Rows of a batch at most: of more, nearly every channel is kept by one of them."""
Run = Callable[[Tensor, Tensor, int], None]
"""(x, y, batch): reads x, writes all of y."""


@dataclass(frozen=True)
class Weights:
    """All arguments of a call but x."""

    rows: Rows
    threshold: Float[Tensor, " d_in"]
    down: Float[Tensor, "d_in rank"] | None = None
    up: Float[Tensor, "rank d_out"] | None = None
    bias: Float[Tensor, " d_out"] | None = None


class Prepared:
    """y_b = W (m_b ∘ x_b) + A B ((1 - m_b) ∘ x_b) + bias for x [*, d_in] of 1 to 8 rows in all.

    `backend` computes; where it is "reference", `reason` says why. An x of more rows, of another
    dtype or in pieces is the definition's, whatever `backend` says.
    """

    def __init__(self, weights: Weights, x_dtype: torch.dtype, threads: int = 1):
        self.weights, self.x_dtype, self.threads = weights, x_dtype, threads
        self.backend: Backend = "reference"
        self.reason = ""
        self._d_in, self._d_out = weights.rows.d_in, weights.rows.d_out
        self._device = weights.rows.device
        self._most = 0
        try:
            self.backend, self._run = _bound(weights, x_dtype, threads)
            self._most = WIDEST * self._d_in
        except Unsupported as refused:
            self.reason = str(refused)

    def __call__(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        size = x.numel()
        if not 0 < size <= self._most or x.dtype is not self.x_dtype or not x.is_contiguous():
            return self.definition(x)
        y = torch.empty((*x.shape[:-1], self._d_out), dtype=self.x_dtype, device=self._device)
        self._run(x, y, size // self._d_in)
        return y

    def __deepcopy__(self, memo: dict[int, Any]) -> "Prepared":
        """Bound to the copied tensors: compiled code holds addresses."""
        return Prepared(copy.deepcopy(self.weights, memo), self.x_dtype, self.threads)

    def definition(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """The same by masks and dense products, of any number of rows."""
        w, flat = self.weights, x.reshape(-1, self._d_in)
        wide = flat.double() if x.dtype == torch.float64 else flat.float()
        if w.down is None or w.up is None:
            y = sparse_gemv(wide, w.rows, w.threshold)
        else:
            y = rsparse_gemv(wide, w.rows, w.threshold, w.down, w.up)
        if w.bias is not None:
            y = y + w.bias.to(y.dtype)
        return y.to(x.dtype).view(*x.shape[:-1], self._d_out)


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

    The tensors are kept, not copied, where they are contiguous: change W in place and the next
    call sees it. `threads`: None is torch's number. `x_dtype`: of the inputs to come; None is that
    of float rows, and float32 for codes. Raises ValueError where shapes do not go together.
    """
    d_in, d_out = rows.d_in, rows.d_out
    if threshold.shape != (d_in,):
        raise ValueError(f"thresholds {tuple(threshold.shape)} for {d_in} channels")
    if (down is None) != (up is None):
        raise ValueError("factors: `down` and `up` go together")
    if (
        down is not None
        and up is not None
        and (down.shape, up.shape)
        != (
            (d_in, len(up)),
            (len(up), d_out),
        )
    ):
        raise ValueError(f"factors {tuple(down.shape)}, {tuple(up.shape)} of {d_in} x {d_out}")
    if bias is not None and bias.shape != (d_out,):
        raise ValueError(f"bias {tuple(bias.shape)} for {d_out} outputs")
    kind = x_dtype or (rows.values.dtype if rows.values.is_floating_point() else torch.float32)
    weights = Weights(rows, threshold, down, up, bias)
    return Prepared(weights, kind, threads or torch.get_num_threads())


def _bound(weights: Weights, x_dtype: torch.dtype, threads: int) -> tuple[Backend, Run]:
    """The first kernel's call. Raises Unsupported with the reason where there is none."""
    backend: Backend = "cpu" if weights.rows.device.type == "cpu" else "triton"
    of_floats = weights.rows.values.is_floating_point()
    module = "triton" if backend == "triton" else "cpu_float" if of_floats else "cpu_codes"
    try:
        kernel = importlib.import_module(f"ctr_kernels.sparse_gemv.{module}")
    except ImportError as error:
        raise Unsupported(f"{module} cannot be imported: {error}") from error
    return backend, kernel.bound(weights, x_dtype, threads)
