"""Blocks of queries against the keys that they can reach, in tiles that stay in a cache.

A tile of scores is one matrix product; the weights exp(score − max so far) replace it in place and
are multiplied with the values, as in Dao et al. (2022, arXiv:2205.14135). The column sums need the
whole row's normaliser, so the tiles of one block are kept until it is known: one block of queries
times all keys is the most that exists. Half precision is computed in float32; float64 takes the
definition block by block.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ctr_kernels.op import Unsupported
from ctr_kernels.sink_mass.arguments import check, intervals
from ctr_kernels.sink_mass.blocked import by_blocks
from ctr_kernels.sink_mass.reference import SinkMass
from ctr_kernels.sink_mass.weigh import column_sums, settle, weigh

# Rows of a tile, heads that share a key head together, and its columns: enough that a matrix
# product runs at its full rate, few enough that a tile stays in the second-level cache or near it.
ROWS, COLUMNS = 192, 2048


@torch.no_grad()
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
    """Σ_q A[q, k] as `reference` defines it, for tensors in CPU memory; no gradients."""
    if any(x is not None and x.device.type != "cpu" for x in (query, key, value, low, high, sink)):
        raise Unsupported("tensors on a CPU")
    check(query, key, value, low, high, softcap, sink)
    low, high = intervals(query, key, low, high)
    if query.dtype == torch.float64:
        return by_blocks(
            query, key, value, scaling=scaling, low=low, high=high, softcap=softcap, sink=sink
        )
    query, key = query.float(), key.float()
    batch, heads, queries, _ = query.shape
    groups = heads // key.shape[1]
    first, last = (edge.long().expand(batch, -1).numpy() for edge in (low, high))
    sinks = np.full(heads, -np.inf, np.float32) if sink is None else sink.float().numpy()
    cap = np.float32(softcap or 0)
    received = np.zeros((batch, heads, key.shape[2]))
    lse = np.full((batch, heads, queries), -np.inf, np.float32)
    # In memory [batch, query, head, d_head]: the order that the next projection reads.
    z = None if value is None else torch.zeros(batch, queries, heads, value.shape[3])
    step = max(1, ROWS // groups)
    # Nothing is allocated in compiled code: a test that poisons `np.empty` would break it.
    column = np.empty(COLUMNS, np.float32)
    scratch = torch.empty(groups * min(step, queries) * key.shape[2])
    for b, at, reach, edges in _blocks(first, last, step):
        for kv in range(key.shape[1]):
            shared = slice(kv * groups, (kv + 1) * groups)
            block = _attend(
                (query[b, shared, at] * scaling).flatten(0, 1),
                key[b, kv, reach],
                None if value is None else value[b, kv, reach].float(),
                edges,
                cap,
                np.repeat(sinks[shared], len(edges[0])),
                scratch,
            )
            lse[b, shared, at] = block.lse.reshape(groups, -1)
            sums = received[b, shared, reach]
            for i, tile in enumerate(block.tiles):
                keys = slice(i * COLUMNS, (i + 1) * COLUMNS)
                column_sums(tile.numpy(), block.factors[i], sums[:, keys], column)
            if z is not None and block.z is not None:
                z[b, at, shared] = block.z.view(groups, -1, z.shape[3]).transpose(0, 1)
    # A query that sees nothing has lse −inf: nothing of it is missing.
    missing = np.exp(sinks[:, None] - np.where(lse == -np.inf, np.inf, lse)).sum(axis=2)
    return SinkMass(
        torch.from_numpy(received).float(),
        torch.from_numpy(lse),
        torch.from_numpy(missing),
        None if z is None else z.transpose(1, 2),
    )


class _Block(NamedTuple):
    """Of one block of rows: pattern = factors[tile, row] · tiles[tile][row, key]."""

    lse: np.ndarray
    z: Tensor | None
    tiles: list[Tensor]
    factors: np.ndarray


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    edges: tuple[np.ndarray, np.ndarray],
    cap: np.float32,
    sinks: np.ndarray,
    scratch: Tensor,
) -> _Block:
    """Softmax of one block of rows, tile by tile; a learned sink is what came before the first."""
    rows = len(query)
    peak, total = sinks.copy(), (sinks > -np.inf).astype(np.float32)
    shrink, inverse, lse = np.empty((3, rows), np.float32)
    z = None if value is None else torch.zeros(rows, value.shape[1])
    tiles, peaks = [], []
    for start in range(0, len(key), COLUMNS):
        keys = slice(start, min(start + COLUMNS, len(key)))
        tile = scratch[rows * keys.start : rows * keys.stop].view(rows, -1)
        torch.mm(query, key[keys].T, out=tile)
        weigh(tile.numpy(), edges[0] - start, edges[1] - start, cap, peak, total, shrink)
        tiles.append(tile)
        peaks.append(peak.copy())
        if z is not None and value is not None:
            z.mul_(torch.from_numpy(shrink)[:, None]).addmm_(tile, value[keys])
    factors = np.stack(peaks)
    settle(*edges, peak, total, factors, lse, inverse)
    if z is not None:
        z.mul_(torch.from_numpy(inverse)[:, None])
    return _Block(lse, z, tiles, factors)


def _blocks(
    low: np.ndarray, high: np.ndarray, step: int
) -> Iterator[tuple[int, slice, slice, tuple[np.ndarray, np.ndarray]]]:
    """(sequence, queries, the keys that they reach, first and last key counted from there)."""
    for b in range(low.shape[0]):
        for start in range(0, low.shape[1], step):
            at = slice(start, min(start + step, low.shape[1]))
            first, last = low[b, at], high[b, at]
            sees = first <= last
            if sees.any():
                reach = slice(int(first[sees].min()), int(last[sees].max()) + 1)
                yield b, at, reach, (first - reach.start, last - reach.start)
