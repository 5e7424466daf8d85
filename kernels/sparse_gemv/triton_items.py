"""The one kernel: sparse part, low-rank part and the last sums in one launch.

The work is cut into items, and a program does one. z = B ((1 - m) ∘ x) by channels; the sparse
part by blocks of outputs and channels; A z by blocks of outputs and of the rank. Items are drawn
from a counter in that order, so that whatever an item waits for is being computed by programs
that wait for nothing: no number of programs in flight can deadlock, unlike with items named by
program_id. Whoever brings the last part of a block of outputs adds the parts up, in the order of
their places (deterministic) or as they were added by atomics, and writes the output; whoever
finishes the last block sets every counter back to zero, so that the next launch, or the next
replay of a CUDA graph, finds them as this one did. Nothing is accumulated in half precision.
"""

from typing import no_type_check

import triton
import triton.language as tl

from ctr_kernels.sparse_gemv.triton_walk import ALL, KEPT, REST, codes, rows

# Places of the counters: the next item, parts of z that are there, blocks finished; then arrivals
# at a block of z, and at a block of outputs.
TICKET, READY, FINISHED, ARRIVALS = (tl.constexpr(i) for i in range(4))


@triton.jit
@no_type_check
def _put(p_to, sums, at, o_n, m_n, d, batch, i_b, part, B: tl.constexpr, ATOMIC: tl.constexpr):
    """Sums to [batch, d], or to the part's own place in [parts, batch, d]."""
    for b in tl.static_range(B):
        m = m_n & (i_b + b < batch)
        if ATOMIC:
            tl.atomic_add(p_to + (i_b + b) * d + o_n, sums[at + b], mask=m, sem="relaxed")
        else:
            tl.store(p_to + (part * batch + i_b + b).to(tl.int64) * d + o_n, sums[at + b], mask=m)


@triton.jit
@no_type_check
def _added(p_from, b, o_n, m_n, d, batch, parts, ATOMIC: tl.constexpr, K: tl.constexpr):
    """[N]: what the items put there for row b of the batch; atomics leave zeros for the next."""
    if ATOMIC:
        p_sum = p_from + b * d + o_n
        b_sum = tl.load(p_sum, mask=m_n, other=0.0, cache_modifier=".cg")
        tl.store(p_sum, tl.full([o_n.shape[0]], 0.0, tl.float32), mask=m_n)
    else:
        b_parts = tl.full([K, o_n.shape[0]], 0.0, tl.float32)
        for i_s in range(0, parts, K):
            o_s = i_s + tl.arange(0, K)
            p_part = p_from + (o_s * batch + b).to(tl.int64)[:, None] * d + o_n[None, :]
            m = (o_s < parts)[:, None] & m_n[None, :]
            b_parts += tl.load(p_part, mask=m, other=0.0, cache_modifier=".cg")
        b_sum = tl.sum(b_parts, axis=0)
    return b_sum


@triton.jit
@no_type_check
def _remainder(
    i_item, p_x, p_t, p_down, p_zparts, p_z, p_state,
    batch, d_in, rank, stride_x, stride_down, blocks, z_cols, z_splits, z_chunk,
    ATOMIC: tl.constexpr, B: tl.constexpr, U: tl.constexpr, KZ: tl.constexpr, NZ: tl.constexpr,
):  # fmt: skip
    """One item of z: NZ of its entries, z_chunk of the channels, B rows of the batch."""
    i_b = i_item % blocks * B
    i_c = i_item // blocks % z_cols
    i_s = i_item // (blocks * z_cols)
    first, last = i_s * z_chunk, tl.minimum(d_in, (i_s + 1) * z_chunk)
    sums = rows(
        p_down, stride_down, i_c * NZ, rank, p_x, p_t, stride_x, batch, i_b, first, last,
        B, KZ, NZ, U, REST,
    )  # fmt: skip
    o_r = i_c * NZ + tl.arange(0, NZ)
    m_r = o_r < rank
    p_to = p_z if ATOMIC else p_zparts
    _put(p_to, sums, 0, o_r, m_r, rank, batch, i_b, i_s, B, ATOMIC)
    # Every thread's part is written before one of them says so.
    tl.debug_barrier()
    if ATOMIC:
        tl.atomic_add(p_state + READY, 1, sem="release")
    else:
        arrived = tl.atomic_add(p_state + ARRIVALS + i_c, 1, sem="acq_rel")
        if arrived == z_splits * blocks - 1:
            tl.store(p_state + ARRIVALS + i_c, 0)
            for b in range(batch):
                b_z = _added(p_zparts, b, o_r, m_r, rank, batch, z_splits, ATOMIC, KZ)
                tl.store(p_z + b * rank + o_r, b_z, mask=m_r)
            tl.debug_barrier()
            tl.atomic_add(p_state + READY, 1, sem="release")


@triton.jit
@no_type_check
def _sparse_part(
    i_item, p_x, p_t, p_w, p_scale, p_zero, p_parts,
    batch, d_in, d_out, width, group, stride_x, blocks, cols, chunk,
    CODES: tl.constexpr, SCALED: tl.constexpr, ZEROS: tl.constexpr, ATOMIC: tl.constexpr,
    B: tl.constexpr, U: tl.constexpr, K: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One item of W (m ∘ x): a block of outputs, `chunk` channels, B rows of the batch."""
    i_b = i_item % blocks * B
    i_n = i_item // blocks % cols * N
    i_s = i_item // (blocks * cols)
    first, last = i_s * chunk, tl.minimum(d_in, (i_s + 1) * chunk)
    o_n = i_n + tl.arange(0, N)
    m_n = o_n < width
    if CODES:
        sums = codes(
            p_w, width, p_scale, p_zero, d_out, group, i_n,
            p_x, p_t, stride_x, batch, i_b, first, last, B, K, N, U, ZEROS,
        )  # fmt: skip
        o_h = width + o_n
        _put(p_parts, sums, 0, o_n, m_n, d_out, batch, i_b, i_s, B, ATOMIC)
        _put(p_parts, sums, B, o_h, o_h < d_out, d_out, batch, i_b, i_s, B, ATOMIC)
    else:
        sums = rows(
            p_w, width, i_n, width, p_x, p_t, stride_x, batch, i_b, first, last,
            B, K, N, U, KEPT,
        )  # fmt: skip
        if SCALED:
            b_s = tl.load(p_scale + o_n, mask=m_n, other=0.0)
            scaled = ()
            for b in tl.static_range(B):
                scaled = scaled + (sums[b] * b_s,)
            sums = scaled
        _put(p_parts, sums, 0, o_n, m_n, d_out, batch, i_b, i_s, B, ATOMIC)


@triton.jit
@no_type_check
def _stand_in(
    i_item, p_z, p_up, p_parts, p_state, needed,
    batch, d_out, width, rank, stride_up, blocks, cols, splits, up_chunk,
    CODES: tl.constexpr, ATOMIC: tl.constexpr,
    B: tl.constexpr, U: tl.constexpr, KU: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One item of A z: a block of outputs, `up_chunk` of the rank, B rows of the batch."""
    i_b = i_item % blocks * B
    i_n = i_item // blocks % cols * N
    i_s = i_item // (blocks * cols)
    first, last = i_s * up_chunk, tl.minimum(rank, (i_s + 1) * up_chunk)
    # The items of z were drawn before this one.
    while tl.atomic_add(p_state + READY, 0, sem="acquire") < needed:
        pass
    # Four-bit codes put two blocks of outputs side by side: o and width + o.
    for half in tl.static_range(2 if CODES else 1):
        limit = d_out - width if half else width
        sums = rows(
            p_up + half * width, stride_up, i_n, limit, p_z, p_z, rank, batch, i_b, first, last,
            B, KU, N, U, ALL,
        )  # fmt: skip
        o_n = i_n + tl.arange(0, N)
        o_o = half * width + o_n
        _put(p_parts, sums, 0, o_o, o_n < limit, d_out, batch, i_b, splits + i_s, B, ATOMIC)


@triton.jit
@no_type_check
def _finish(
    i_c, p_bias, p_y, p_parts, p_arrivals, batch, d_out, width, parts, blocks,
    CODES: tl.constexpr, BIAS: tl.constexpr, ATOMIC: tl.constexpr,
    K: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """The last to arrive at a block of outputs adds its parts up. Returns 1 where it did."""
    tl.debug_barrier()
    arrived = tl.atomic_add(p_arrivals + i_c, 1, sem="acq_rel")
    done = (arrived == parts * blocks - 1).to(tl.int32)
    if done:
        tl.store(p_arrivals + i_c, 0)
        o_n = i_c * N + tl.arange(0, N)
        for half in tl.static_range(2 if CODES else 1):
            o_o = half * width + o_n
            m_o = (o_n < width) & (o_o < d_out)
            for b in range(batch):
                b_y = _added(p_parts, b, o_o, m_o, d_out, batch, parts, ATOMIC, K)
                if BIAS:
                    b_y += tl.load(p_bias + o_o, mask=m_o, other=0.0).to(tl.float32)
                tl.store(p_y + b * d_out + o_o, b_y.to(p_y.dtype.element_ty), mask=m_o)
        tl.debug_barrier()
    return done


@triton.jit
@no_type_check
def _rsparse(
    p_x, p_t, p_w, p_scale, p_zero, p_down, p_up, p_bias, p_y, p_parts, p_zparts, p_z, p_state,
    batch, d_in, d_out, width, group, rank, stride_x, stride_down, stride_up,
    blocks, cols, splits, chunk, z_cols, z_splits, z_chunk, up_splits, up_chunk,
    CODES: tl.constexpr, SCALED: tl.constexpr, ZEROS: tl.constexpr, LOW: tl.constexpr,
    BIAS: tl.constexpr, ATOMIC: tl.constexpr, B: tl.constexpr, U: tl.constexpr,
    K: tl.constexpr, N: tl.constexpr, KZ: tl.constexpr, NZ: tl.constexpr, KU: tl.constexpr,
):  # fmt: skip
    """One item, of any kind."""
    i_item = tl.atomic_add(p_state + TICKET, 1, sem="relaxed")
    z_items = z_cols * z_splits * blocks
    w_items = cols * splits * blocks
    i_out = i_item
    if LOW:
        i_out = i_item - z_items
        if i_item < z_items:
            _remainder(
                i_item, p_x, p_t, p_down, p_zparts, p_z, p_state,
                batch, d_in, rank, stride_x, stride_down, blocks, z_cols, z_splits, z_chunk,
                ATOMIC, B, U, KZ, NZ,
            )  # fmt: skip
        if i_out >= w_items:
            _stand_in(
                i_out - w_items, p_z, p_up, p_parts, p_state, z_items if ATOMIC else z_cols,
                batch, d_out, width, rank, stride_up, blocks, cols, splits, up_chunk,
                CODES, ATOMIC, B, U, KU, N,
            )  # fmt: skip
    if (i_out >= 0) & (i_out < w_items):
        _sparse_part(
            i_out, p_x, p_t, p_w, p_scale, p_zero, p_parts,
            batch, d_in, d_out, width, group, stride_x, blocks, cols, chunk,
            CODES, SCALED, ZEROS, ATOMIC, B, U, K, N,
        )  # fmt: skip
    if i_out >= 0:
        i_c = i_out // blocks % cols
        p_arrivals = p_state + ARRIVALS + z_cols
        parts = splits + up_splits
        done = _finish(
            i_c, p_bias, p_y, p_parts, p_arrivals, batch, d_out, width, parts, blocks,
            CODES, BIAS, ATOMIC, K, N,
        )  # fmt: skip
        # One condition would be one expression, both halves of which are always computed.
        if done:  # noqa: SIM102
            if tl.atomic_add(p_state + FINISHED, 1, sem="acq_rel") == cols - 1:
                tl.store(p_state + TICKET, 0)
                tl.store(p_state + READY, 0)
                tl.store(p_state + FINISHED, 0)
                if LOW and ATOMIC:
                    for i_r in range(0, batch * rank, N):
                        o_r = i_r + tl.arange(0, N)
                        tl.store(p_z + o_r, tl.full([N], 0.0, tl.float32), mask=o_r < batch * rank)
