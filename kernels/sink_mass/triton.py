"""Two passes over the scores, none of which leaves the registers.

Rows: a program for every block of queries runs over the keys that it sees and keeps the running
maximum and sum of every row (Milakov and Gimelshein 2018, arXiv:1805.02867), and z with them.
Columns: a program for every block of keys runs over the queries that see it and adds up
exp(logit − lse). Each number is written by one program, so there are no atomic additions and two
runs agree bit by bit. The scores are computed twice: T × T numbers are never written. Compiled
functions carry `no_type_check`: a shape checker's wrapper knows no name of this file, and one calls
another.
"""

from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from ctr_kernels.op import Unsupported
from ctr_kernels.sink_mass.arguments import check, intervals
from ctr_kernels.sink_mass.reference import SinkMass

# The widest head that stays in registers on every target of the compile test.
WIDEST = 256


@triton.jit
@no_type_check
def _logits(b_q, b_k, scaling, softcap, CAPPED: tl.constexpr):
    """[M, N]; "ieee": float32 is not rounded to TF32 on the way."""
    b_s = tl.dot(b_q, tl.trans(b_k), input_precision="ieee") * scaling
    if CAPPED:
        # c·tanh(x / c); e never overflows.
        b_e = tl.exp(-2.0 * tl.abs(b_s) / softcap)
        b_t = softcap * (1.0 - b_e) / (1.0 + b_e)
        b_s = tl.where(b_s < 0, -b_t, b_t)
    return b_s


@triton.jit
@no_type_check
def _rows(
    p_q, p_k, p_v, p_low, p_high, p_sink, p_lse, p_z,
    queries, keys, heads, scaling, softcap,
    stride_qb, stride_qh, stride_q, stride_kb, stride_kh, stride_k, stride_vb, stride_vh, stride_v,
    GROUPS: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
    WIDE: tl.constexpr, WIDE_V: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    VALUED: tl.constexpr, CAPPED: tl.constexpr, SINK: tl.constexpr,
):  # fmt: skip
    # The last queries have the most keys under a causal mask: they start first.
    i_m = tl.num_programs(0) - 1 - tl.program_id(0)
    i_h = tl.program_id(1).to(tl.int64)
    i_b = tl.program_id(2).to(tl.int64)
    i_kv = i_h // GROUPS
    o_m = i_m * M + tl.arange(0, M)
    o_n = tl.arange(0, N)
    o_d = tl.arange(0, WIDE)
    o_v = tl.arange(0, WIDE_V)
    m_m = o_m < queries
    b_low = tl.load(p_low + i_b * queries + o_m, mask=m_m, other=0)
    b_high = tl.load(p_high + i_b * queries + o_m, mask=m_m, other=-1)
    m_sees = b_low <= b_high
    start = tl.min(tl.where(m_sees, b_low, keys), axis=0) // N * N
    stop = tl.max(tl.where(m_sees, b_high, -1), axis=0) + 1
    p_rows = p_q + i_b * stride_qb + i_h * stride_qh + o_m[:, None].to(tl.int64) * stride_q
    # [M, WIDE]
    b_q = tl.load(p_rows + o_d[None, :], mask=m_m[:, None] & (o_d < D)[None, :], other=0.0)
    b_peak = tl.full([M], float("-inf"), tl.float32)
    b_total = tl.zeros([M], tl.float32)
    if SINK:
        # A learned sink is what came before the first key.
        b_peak = tl.zeros([M], tl.float32) + tl.load(p_sink + i_h)
        b_total += 1.0
    b_z = tl.zeros([M, WIDE_V], tl.float32)
    for i_n in range(start, stop, N):
        o_key = (i_n + o_n).to(tl.int64)
        m_n = o_key < keys
        p_key = p_k + i_b * stride_kb + i_kv * stride_kh + o_key[:, None] * stride_k
        b_k = tl.load(p_key + o_d[None, :], mask=m_n[:, None] & (o_d < D)[None, :], other=0.0)
        b_s = _logits(b_q, b_k, scaling, softcap, CAPPED)
        m_seen = (b_low[:, None] <= o_key[None, :]) & (o_key[None, :] <= b_high[:, None])
        b_s = tl.where(m_seen, b_s, float("-inf"))
        b_next = tl.maximum(b_peak, tl.max(b_s, axis=1))
        # A row that has seen nothing yet has no maximum to subtract.
        b_from = tl.where(b_next == float("-inf"), 0.0, b_next)
        b_shrink = tl.exp(b_peak - b_from)
        b_p = tl.exp(b_s - b_from[:, None])
        b_total = b_total * b_shrink + tl.sum(b_p, axis=1)
        b_peak = b_next
        if VALUED:
            p_val = p_v + i_b * stride_vb + i_kv * stride_vh + o_key[:, None] * stride_v
            b_v = tl.load(p_val + o_v[None, :], mask=m_n[:, None] & (o_v < DV)[None, :], other=0.0)
            b_z *= b_shrink[:, None]
            b_z = tl.dot(b_p.to(b_v.dtype), b_v, b_z, input_precision="ieee")
    b_lse = tl.where(m_sees, b_peak + tl.log(tl.where(m_sees, b_total, 1.0)), float("-inf"))
    o_row = (i_b * heads + i_h) * queries + o_m
    tl.store(p_lse + o_row, b_lse, mask=m_m)
    if VALUED:
        b_z = tl.where(m_sees[:, None], b_z / tl.where(m_sees, b_total, 1.0)[:, None], 0.0)
        p_out = p_z + o_row[:, None] * DV + o_v[None, :]
        tl.store(p_out, b_z, mask=m_m[:, None] & (o_v < DV)[None, :])


@triton.jit
@no_type_check
def _columns(
    p_q, p_k, p_low, p_high, p_lse, p_first, p_last, p_received,
    queries, keys, heads, scaling, softcap,
    stride_qb, stride_qh, stride_q, stride_kb, stride_kh, stride_k,
    GROUPS: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, CAPPED: tl.constexpr,
):  # fmt: skip
    i_n = tl.program_id(0)
    i_h = tl.program_id(1).to(tl.int64)
    i_b = tl.program_id(2).to(tl.int64)
    i_kv = i_h // GROUPS
    o_m = tl.arange(0, M)
    o_d = tl.arange(0, WIDE)
    o_key = i_n * N + tl.arange(0, N)
    m_n = o_key < keys
    p_key = p_k + i_b * stride_kb + i_kv * stride_kh + o_key[:, None].to(tl.int64) * stride_k
    # [N, WIDE]
    b_k = tl.load(p_key + o_d[None, :], mask=m_n[:, None] & (o_d < D)[None, :], other=0.0)
    first = tl.load(p_first + i_b * tl.num_programs(0) + i_n)
    last = tl.load(p_last + i_b * tl.num_programs(0) + i_n)
    # Summed over rows once, at the end: a sum across the threads of a row block is not free.
    b_sum = tl.zeros([M, N], tl.float32)
    for i_m in range(first, last, M):
        o_row = (i_m + o_m).to(tl.int64)
        m_m = o_row < queries
        b_low = tl.load(p_low + i_b * queries + o_row, mask=m_m, other=0)
        b_high = tl.load(p_high + i_b * queries + o_row, mask=m_m, other=-1)
        b_lse = tl.load(p_lse + (i_b * heads + i_h) * queries + o_row, mask=m_m, other=0.0)
        p_row = p_q + i_b * stride_qb + i_h * stride_qh + o_row[:, None] * stride_q
        b_q = tl.load(p_row + o_d[None, :], mask=m_m[:, None] & (o_d < D)[None, :], other=0.0)
        b_s = _logits(b_q, b_k, scaling, softcap, CAPPED)
        m_seen = (b_low[:, None] <= o_key[None, :]) & (o_key[None, :] <= b_high[:, None])
        # −inf where nothing is seen, not after the exponential: lse may be −inf there.
        b_s = tl.where(m_seen, b_s - b_lse[:, None], float("-inf"))
        b_sum += tl.exp(b_s)
    b_received = tl.sum(b_sum, axis=0)
    tl.store(p_received + (i_b * heads + i_h) * keys + o_key, b_received, mask=m_n)


class Geometry(NamedTuple):
    """Rows and columns of a block of scores, warps, and stages of the loop over blocks."""

    M: int
    N: int
    warps: int
    stages: int


def geometry(dtype: torch.dtype, width: int) -> Geometry:
    """What stays in registers (`tests/kernels/test_compiles.py`) for heads of that width.

    Exact float32 products have no matrix units on NVIDIA: every thread holds its operands.
    """
    if dtype == torch.float32:
        return Geometry(32, 32 if width <= 128 else 16, 4 if width <= 64 else 8, 1)
    if width <= 64:
        return Geometry(64, 64, 4, 2)
    return Geometry(128, 64, 8, 2) if width <= 128 else Geometry(64, 32, 8, 2)


def sink_mass(
    query: Float[Tensor, "batch head query d_key"],
    key: Float[Tensor, "batch kv_head key d_key"],
    value: Float[Tensor, "batch kv_head key d_head"] | None = None,
    *,
    scaling: float,
    low: Int[Tensor, "#batch query"] | None = None,
    high: Int[Tensor, "#batch query"] | None = None,
    softcap: float | None = None,
    sink: Float[Tensor, " head"] | None = None,
) -> SinkMass:
    """Σ_q A[q, k] as `reference` defines it; heads of at most `WIDEST`, three dtypes, one for all.

    In half precision the weights are rounded to it before they meet the values, as in every
    flash attention: z has that error, `received` and `lse` have not. Nothing waits for the GPU.
    """
    check(query, key, value, low, high, softcap, sink)
    batch, heads, queries, d_key = query.shape
    keys, d_head = key.shape[2], 0 if value is None else value.shape[3]
    if query.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise Unsupported("float32, bfloat16 or float16")
    if query.dtype != key.dtype or (value is not None and value.dtype != key.dtype):
        raise Unsupported("queries, keys and values of one dtype")
    if max(d_key, d_head) > WIDEST:
        raise Unsupported(f"heads of at most {WIDEST}")
    if query.is_meta or (query.device.type == "cpu" and isinstance(_rows, triton.JITFunction)):
        raise Unsupported("a GPU, or TRITON_INTERPRET=1 before the first import")
    query, key, value = (_rows_in_memory(x) for x in (query, key, value))
    low, high = (
        edge.int().expand(batch, -1).contiguous() for edge in intervals(query, key, low, high)
    )
    like = {"dtype": torch.float32, "device": query.device}
    received = torch.empty(batch, heads, keys, **like)
    lse = torch.empty(batch, heads, queries, **like)
    z = None if value is None else torch.empty(batch, heads, queries, d_head, **like)
    wide, wide_v = (max(16, triton.next_power_of_2(d)) for d in (d_key, d_head))
    m, n, warps, stages = geometry(query.dtype, max(wide, wide_v))
    first, last = _seen_by(low, high, keys, m, n)
    shape = (queries, keys, heads, scaling, softcap or 1.0)
    common = {
        "GROUPS": heads // key.shape[1], "D": d_key, "WIDE": wide, "M": m, "N": n,
        "CAPPED": softcap is not None, "num_warps": warps, "num_stages": stages,
    }  # fmt: skip
    strides = (*query.stride()[:3], *key.stride()[:3])
    # Triton launches on the current device, which need not be that of a block further down.
    with torch.cuda.device_of(query):
        _rows[(triton.cdiv(queries, m), heads, batch)](
            query, key, value, low, high, None if sink is None else sink.float(), lse, z,
            *shape, *strides, *((0, 0, 0) if value is None else value.stride()[:3]),
            DV=d_head, WIDE_V=wide_v, VALUED=value is not None, SINK=sink is not None, **common,
        )  # fmt: skip
        _columns[(triton.cdiv(keys, n), heads, batch)](
            query, key, low, high, lse, first, last, received, *shape, *strides, **common
        )
    if sink is None:
        return SinkMass(received, lse, torch.zeros(batch, heads, **like), z)
    # lse −inf: the query sees nothing, and nothing of it is missing.
    aside = torch.where(lse == -torch.inf, 0.0, (sink.float()[:, None] - lse).exp())
    return SinkMass(received, lse, aside.sum(dim=-1), z)


def _rows_in_memory(x: Tensor | None) -> Tensor | None:
    return x if x is None or x.stride(3) == 1 else x.contiguous()


def _seen_by(
    low: Int[Tensor, "batch query"], high: Int[Tensor, "batch query"], keys: int, m: int, n: int
) -> tuple[Int[Tensor, "batch block"], Int[Tensor, "batch block"]]:
    """For every block of n keys, where the queries that see one of it begin and end.

    In steps of m queries, computed where the tensors are; begin = end where nobody sees it.
    """
    rows = triton.cdiv(low.shape[1], m)
    ahead = rows * m - low.shape[1]
    # Queries that see nothing, and those that are not there, reach no key: from `never` to −1.
    sees, never = low <= high, torch.iinfo(low.dtype).max
    low = torch.where(sees, low, never)
    high = torch.where(sees, high, -1)
    lowest = torch.nn.functional.pad(low, (0, ahead), value=never).unflatten(1, (rows, m)).amin(2)
    highest = torch.nn.functional.pad(high, (0, ahead), value=-1).unflatten(1, (rows, m)).amax(2)
    start = torch.arange(0, keys, n, device=low.device, dtype=low.dtype)
    # [batch, key block, query block]
    meets = (lowest[:, None] < start[:, None] + n) & (highest[:, None] >= start[:, None])
    at = torch.arange(rows, device=low.device)
    first = torch.where(meets, at, rows).amin(2)
    last = torch.where(meets, at + 1, 0).amax(2)
    return (first * m).int(), (torch.maximum(first, last) * m).int()
