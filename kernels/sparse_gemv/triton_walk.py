"""A walk over stored rows: Σ_k v_bk row_k, where a row whose v_bk are all zero is not read.

A warp reads one row segment of 16 bytes a thread, so that the decision to read is the same for
all its threads; U rows are asked for before the first arrives. Every thread adds up its own
outputs; the warps of a program meet once, at the end. Sums are float32, one set a row of the
batch, in tuples whose length the compiler knows.
"""

from typing import no_type_check

import triton
import triton.language as tl

# What a channel puts in: x itself, x where |x| > t, x where not.
ALL, KEPT, REST = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
@no_type_check
def channels(p_x, p_t, stride_x, batch, i_b, o_k, m_k, B: tl.constexpr, KIND: tl.constexpr):
    """v_bk of B rows, and which channels any of them needs. A NaN is kept, and needed."""
    values = ()
    needed = o_k < 0
    for b in tl.static_range(B):
        m_b = m_k & (i_b + b < batch)
        # z was written by other programs of this launch: not from this processor's own cache.
        if KIND == ALL:
            b_v = tl.load(
                p_x + (i_b + b) * stride_x + o_k, mask=m_b, other=0.0, cache_modifier=".cg"
            )
        else:
            b_x = tl.load(p_x + (i_b + b) * stride_x + o_k, mask=m_b, other=0.0).to(tl.float32)
            small = tl.abs(b_x) <= tl.load(p_t + o_k, mask=m_k, other=0.0)
            b_v = tl.where(small, 0.0, b_x) if KIND == KEPT else tl.where(small, b_x, 0.0)
        values = values + (b_v,)
        needed = needed | (b_v != 0)
    return values, needed


@triton.jit
@no_type_check
def rows(
    p_rows, stride_row, i_n, width, p_x, p_t, stride_x, batch, i_b, start, stop,
    B: tl.constexpr, K: tl.constexpr, N: tl.constexpr, U: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """B times [N]: the sums of rows start to stop, columns i_n to i_n + N of `width`."""
    o_n = i_n + tl.arange(0, N)
    m_n = o_n < width
    # [K, N] each
    sums = ()
    for _ in tl.static_range(B):
        sums = sums + (tl.full([K, N], 0.0, tl.float32),)
    for i_k in range(start, stop, K * U):
        for u in tl.static_range(U):
            o_k = i_k + u * K + tl.arange(0, K)
            values, needed = channels(p_x, p_t, stride_x, batch, i_b, o_k, o_k < stop, B, KIND)
            p_k = p_rows + o_k[:, None].to(tl.int64) * stride_row + o_n[None, :]
            m_w = needed[:, None] & m_n[None, :]
            b_w = tl.load(p_k, mask=m_w, other=0, eviction_policy="evict_first").to(tl.float32)
            more = ()
            for b in tl.static_range(B):
                more = more + (sums[b] + b_w * values[b][:, None],)
            sums = more
    total = ()
    for b in tl.static_range(B):
        total = total + (tl.sum(sums[b], axis=0),)
    return total


@triton.jit
@no_type_check
def codes(
    p_rows, width, p_scale, p_zero, d_out, group, i_n,
    p_x, p_t, stride_x, batch, i_b, start, stop,
    B: tl.constexpr, K: tl.constexpr, N: tl.constexpr, U: tl.constexpr, ZEROS: tl.constexpr,
):  # fmt: skip
    """The same of four-bit codes: B low halves, then B high halves, scaled group by group.

    The zero is taken off a code before it meets x, as in the definition: an infinite x stays one.
    """
    o_n = i_n + tl.arange(0, N)
    m_n = o_n < width
    o_h = o_n + width
    m_h = o_h < d_out
    sums = ()
    for _ in tl.static_range(2 * B):
        sums = sums + (tl.full([K, N], 0.0, tl.float32),)
    for i_g in range(start // group, tl.cdiv(stop, group)):
        # The interpreter counts loops in plain integers, which a maximum makes tensors.
        p_g = tl.maximum(i_g, 0).to(tl.int64) * d_out
        if ZEROS:
            b_zl = tl.load(p_zero + p_g + o_n, mask=m_n, other=0.0)[None, :]
            b_zh = tl.load(p_zero + p_g + o_h, mask=m_h, other=0.0)[None, :]
        else:
            b_zl = 8.0
            b_zh = 8.0
        part = ()
        for _ in tl.static_range(2 * B):
            part = part + (tl.full([K, N], 0.0, tl.float32),)
        first, last = tl.maximum(start, i_g * group), tl.minimum(stop, (i_g + 1) * group)
        for i_k in range(first, last, K * U):
            for u in tl.static_range(U):
                o_k = i_k + u * K + tl.arange(0, K)
                values, needed = channels(p_x, p_t, stride_x, batch, i_b, o_k, o_k < last, B, KEPT)
                p_k = p_rows + o_k[:, None].to(tl.int64) * width + o_n[None, :]
                m_w = needed[:, None] & m_n[None, :]
                b_c = tl.load(p_k, mask=m_w, other=0, eviction_policy="evict_first")
                b_low = (b_c & 15).to(tl.float32) - b_zl
                b_high = (b_c >> 4).to(tl.float32) - b_zh
                more = ()
                for b in tl.static_range(B):
                    more = more + (part[b] + b_low * values[b][:, None],)
                for b in tl.static_range(B):
                    more = more + (part[B + b] + b_high * values[b][:, None],)
                part = more
        b_sl = tl.load(p_scale + p_g + o_n, mask=m_n, other=0.0)[None, :]
        b_sh = tl.load(p_scale + p_g + o_h, mask=m_h, other=0.0)[None, :]
        more = ()
        for b in tl.static_range(B):
            more = more + (sums[b] + part[b] * b_sl,)
        for b in tl.static_range(B):
            more = more + (sums[B + b] + part[B + b] * b_sh,)
        sums = more
    total = ()
    for b in tl.static_range(2 * B):
        total = total + (tl.sum(sums[b], axis=0),)
    return total
