"""sparse_gemv and rsparse_gemv on a GPU, in one launch each (`triton_items.py`)."""

import torch
import triton
from jaxtyping import Float
from torch import Tensor

from ctr_kernels.op import Unsupported
from ctr_kernels.sparse_gemv import triton_plan
from ctr_kernels.sparse_gemv.prepared import WIDEST, Run, Weights
from ctr_kernels.sparse_gemv.reference import _check
from ctr_kernels.sparse_gemv.rows import FLOATS, Rows
from ctr_kernels.sparse_gemv.triton_items import _rsparse


class Bound:
    """y = W (m ∘ x) + A B ((1 - m) ∘ x) + bias, bound to all but x [batch, d_in].

    `aligned`: copy factors to rows of a multiple of 16 entries where they are not (the pad is never
    read, or costs less than the 32 bytes that memory hands out at once): every load is then of 16
    bytes a thread. Launches of one `workspace` must not overlap; by default it is that of
    the current stream. Raises `Unsupported` for formats and devices that the kernel does not know,
    ValueError where shapes do not go together.
    """

    def __init__(
        self,
        rows: Rows,
        threshold: Float[Tensor, " d_in"],
        down: Float[Tensor, "d_in rank"] | None = None,
        up: Float[Tensor, "rank d_out"] | None = None,
        bias: Float[Tensor, " d_out"] | None = None,
        *,
        deterministic: bool = True,
        aligned: bool = True,
        workspace: triton_plan.Workspace | None = None,
    ):
        _supported(rows, threshold, down, up, bias)
        self.rows, self.threshold = rows, threshold.contiguous()
        self.rank = 0 if up is None else len(up)
        self.down, self.up = down, up
        if down is not None and up is not None:
            self._factors(down, up, aligned)
        self.bias = None if bias is None else bias.contiguous()
        self.deterministic, self.workspace = deterministic, workspace
        self.processors, self.lanes = triton_plan.processors(rows.device)

    def _factors(self, down: Tensor, up: Tensor, aligned: bool) -> None:
        rank = -(-self.rank // 16) * 16 if aligned else self.rank
        if rank > self.rank:
            down = torch.nn.functional.pad(down, (0, rank - self.rank))
            up = torch.nn.functional.pad(up, (0, 0, 0, rank - self.rank))
        self.down, self.up, self.rank = down.contiguous(), up.contiguous(), rank

    def __call__(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_out"]:
        """One launch. Raises `Unsupported` for more rows than `WIDEST`, or float64."""
        rows, (batch, d_in) = self.rows, x.shape
        if x.dtype not in FLOATS or batch > WIDEST:
            raise Unsupported(f"at most {WIDEST} rows of float32, bfloat16 or float16")
        if d_in != rows.d_in or x.device != rows.device:
            raise ValueError(f"x {tuple(x.shape)} on {x.device} for {rows.d_in} channels")
        if 0 in (batch, d_in, rows.d_out):
            y = torch.zeros(batch, rows.d_out, dtype=x.dtype, device=x.device)
            return y if self.bias is None else y + self.bias.to(y.dtype)
        if x.stride(1) != 1:
            x = x.contiguous()
        y = torch.empty(batch, rows.d_out, dtype=x.dtype, device=x.device)
        self.into(x, y, batch)
        return y

    def into(self, x: Tensor, y: Tensor, batch: int) -> None:
        """The launch alone: x [batch, d_in], rows contiguous, y [batch, d_out], nothing checked."""
        rows, stride_x = self.rows, x.stride(0) if x.dim() == 2 else self.rows.d_in
        factors = 2 if self.down is None else self.down.element_size()
        shape = triton_plan.geometry(rows, factors, self.rank, batch, self.lanes)
        cut = triton_plan.plan(rows, self.rank, batch, shape, self.processors)
        shared, atomic = self.workspace or triton_plan.workspace(x.device), not self.deterministic
        parts = 1 if atomic else cut.splits + cut.up_splits
        constants = self.constants() | shape._asdict()
        # Triton launches on the current device, which need not be that of a block further down.
        with torch.cuda.device_of(x):
            _rsparse[(cut.programs,)](
                x, self.threshold, rows.values, rows.scales, rows.zeros, self.down, self.up,
                self.bias, y,
                shared.floats("parts", parts * batch * rows.d_out, zero=atomic),
                shared.floats("z parts", cut.z_splits * batch * self.rank, zero=False),
                shared.floats("z", batch * self.rank, zero=atomic),
                shared.counters(cut.counters),
                batch, rows.d_in, rows.d_out, rows.values.shape[1], rows.group, self.rank,
                stride_x, self.rank, rows.d_out, *cut, **constants, num_warps=triton_plan.WARPS,
            )  # fmt: skip

    def constants(self) -> dict[str, bool]:
        """What the kernel is compiled for, beside its `Geometry`."""
        return {
            "CODES": self.rows.values.dtype == torch.uint8,
            "SCALED": self.rows.values.dtype == torch.int8,
            "ZEROS": self.rows.zeros is not None,
            "LOW": self.rank > 0,
            "BIAS": self.bias is not None,
            "ATOMIC": not self.deterministic,
        }


def bound(weights: Weights, x_dtype: torch.dtype, threads: int) -> Run:
    """The launch that `Prepared` calls. `threads` are the CPU's: not used."""
    if x_dtype not in FLOATS:
        raise Unsupported("inputs of float32, bfloat16 or float16")
    w = weights
    return Bound(w.rows, w.threshold, w.down, w.up, w.bias).into


def sparse_gemv(
    x: Float[Tensor, "batch d_in"],
    rows: Rows,
    threshold: Float[Tensor, " d_in"],
    *,
    deterministic: bool = True,
) -> Float[Tensor, "batch d_out"]:
    """y_b = W (m_b ∘ x_b) as `reference` defines it; every format of `Rows` but float64."""
    _check(x, rows, threshold)
    return Bound(rows, threshold, deterministic=deterministic)(x)


def rsparse_gemv(
    x: Float[Tensor, "batch d_in"],
    rows: Rows,
    threshold: Float[Tensor, " d_in"],
    down: Float[Tensor, "d_in rank"],
    up: Float[Tensor, "rank d_out"],
    *,
    deterministic: bool = True,
) -> Float[Tensor, "batch d_out"]:
    """y_b = W (m_b ∘ x_b) + A B ((1 - m_b) ∘ x_b) as `reference` defines it."""
    _check(x, rows, threshold)
    return Bound(rows, threshold, down, up, deterministic=deterministic, aligned=False)(x)


def _supported(rows: Rows, threshold: Tensor, *others: Tensor | None) -> None:
    if rows.device.type == "meta" or (
        rows.device.type == "cpu" and isinstance(_rsparse, triton.JITFunction)
    ):
        raise Unsupported("a GPU, or TRITON_INTERPRET=1 before the first import")
    if rows.values.dtype == torch.float64 or threshold.dtype != torch.float32:
        raise Unsupported("rows of at most float32, thresholds of float32")
    given = [tensor for tensor in others if tensor is not None]
    if any(tensor.dtype not in FLOATS for tensor in given):
        raise Unsupported("factors and bias of float32, bfloat16 or float16")
    if any(tensor.device != rows.device for tensor in (threshold, *given)):
        raise ValueError(f"rows are on {rows.device}: thresholds, factors and bias have to be, too")
    down, up, bias = others
    if (down is None) != (up is None):
        raise ValueError("factors: `down` and `up` go together")
    if down is not None and up is not None and (
        down.shape != (rows.d_in, len(up)) or up.shape[1] != rows.d_out
    ):  # fmt: skip
        raise ValueError(
            f"factors {tuple(down.shape)}, {tuple(up.shape)} of {rows.d_in} x {rows.d_out}"
        )
    if threshold.shape != (rows.d_in,) or (bias is not None and bias.shape != (rows.d_out,)):
        raise ValueError(
            f"thresholds {tuple(threshold.shape)} of {rows.d_in} channels, or the bias"
        )
