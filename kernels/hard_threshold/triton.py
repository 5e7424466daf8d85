"""Bisection on the bits of |x|, a row in registers: one load, one store, no sort.

One program a row; N is the next power of two above d_in. The threshold is built from its highest
bit down: a bit stays if at least `keep` entries reach the number that it completes. 31 counts
in registers cost less than moving the row twice.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from ctr_kernels.op import Unsupported

# The widest row that stays in registers on every target of the compile test.
WIDEST = 16384


@triton.jit
def _select(p_x, p_y, d_in, keep, stride_x, N: tl.constexpr):
    i_row = tl.program_id(0).to(tl.int64)
    o_n = tl.arange(0, N)
    m_n = o_n < d_in
    # [N]
    b_x = tl.load(p_x + i_row * stride_x + o_n, mask=m_n, other=0.0)
    b_bits = b_x.to(tl.float32).to(tl.int32, bitcast=True) & 0x7FFFFFFF
    # The tail reads as zeros behind the row: no candidate counts them, and among ties at zero
    # they come last.
    threshold = tl.full([], 0, tl.int32)
    for step in range(31):
        candidate = threshold | (1 << (30 - step))
        reached = tl.sum((b_bits >= candidate).to(tl.int32), axis=0)
        threshold = tl.where(reached >= keep, candidate, threshold)
    b_above = b_bits > threshold
    b_tie = (b_bits == threshold).to(tl.int32)
    left = keep - tl.sum(b_above.to(tl.int32), axis=0)
    b_keep = b_above | ((b_tie > 0) & (tl.cumsum(b_tie, axis=0) <= left))
    tl.store(p_y + i_row * d_in + o_n, tl.where(b_keep, b_x, 0.0), mask=m_n)


def geometry(d_in: int) -> tuple[int, int]:
    """(N, warps) for rows of `d_in`: at most 32 entries a thread (16 in warps of 64)."""
    wide = max(triton.next_power_of_2(d_in), 128)
    return wide, min(max(wide // 512, 1), 16)


def hard_threshold(x: Float[Tensor, "rows d_in"], keep: int) -> Float[Tensor, "rows d_in"]:
    """HT_k(x) as `reference` defines it; three dtypes, rows of at most `WIDEST`."""
    rows, d_in = x.shape
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise Unsupported("float32, bfloat16 or float16")
    if d_in > WIDEST:
        raise Unsupported(f"rows of at most {WIDEST}")
    if x.is_meta or (x.device.type == "cpu" and isinstance(_select, triton.JITFunction)):
        raise Unsupported("a GPU, or TRITON_INTERPRET=1 before the first import")
    if not 0 <= keep <= d_in:
        raise ValueError(f"hard_threshold: keep={keep} of rows of {d_in}")
    if keep == 0 or rows == 0:
        return torch.zeros_like(x)
    if x.stride(1) != 1:
        x = x.contiguous()
    kept = torch.empty((rows, d_in), dtype=x.dtype, device=x.device)
    wide, warps = geometry(d_in)
    # Triton launches on the current device, which need not be that of a block further down.
    with torch.cuda.device_of(x):
        _select[(rows,)](x, kept, d_in, keep, x.stride(0), N=wide, num_warps=warps)
    return kept
