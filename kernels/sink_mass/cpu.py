"""Blocks of queries: the scores of one block against the keys it can reach, and nothing larger.

A block's scores are one matrix product. The weights exp(score − max) replace them in place, then
their column sums and their product with the values are taken: one pass over the scores, and T × T
numbers never exist. Half precision is computed in float32; float64 takes the definition block by
block.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ctr_kernels.op import Unsupported
from ctr_kernels.sink_mass.arguments import check, intervals
from ctr_kernels.sink_mass.blocked import by_blocks
from ctr_kernels.sink_mass.reference import SinkMass
from ctr_kernels.sink_mass.weigh import column_sums, weigh

# Rows of a block of scores, heads that share a key head together: enough that a matrix product
# runs at its full rate, few enough that the block stays in a cache.
ROWS = 128


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
    value = None if value is None else value.float()
    batch, heads, queries, _ = query.shape
    groups = heads // key.shape[1]
    edges = [edge.long().expand(batch, -1).numpy() for edge in (low, high)]
    sinks = np.full(heads, -np.inf, np.float32) if sink is None else sink.float().numpy()
    received = np.zeros((batch, heads, key.shape[2]))
    lse = torch.full((batch, heads, queries), -torch.inf)
    missing = np.zeros((batch, heads))
    # In memory [batch, query, head, d_head]: the order that the next projection reads.
    z = None if value is None else torch.zeros(batch, queries, heads, value.shape[3])
    step = max(1, ROWS // groups)
    scratch = torch.empty(groups * min(step, queries) * key.shape[2])
    for b, at, reach, (first, last) in _blocks(*edges, step):
        for kv in range(key.shape[1]):
            shared = slice(kv * groups, (kv + 1) * groups)
            rows = (query[b, shared, at] * scaling).flatten(0, 1)
            tile = scratch[: len(rows) * (reach.stop - reach.start)].view(len(rows), -1)
            torch.mm(rows, key[b, kv, reach].T, out=tile)
            inverse = np.empty(len(rows), np.float32)
            weigh(
                tile.numpy(),
                first,
                last,
                np.float32(softcap or 0),
                sinks[shared],
                lse[b, shared, at].numpy(),
                inverse,
                missing[b, shared],
            )
            column_sums(tile.numpy(), inverse, received[b, shared, reach])
            if z is not None and value is not None:
                attended = (tile @ value[b, kv, reach]).view(groups, -1, z.shape[3])
                share = torch.from_numpy(inverse).view(groups, -1, 1)
                torch.mul(attended, share, out=z[b, at, shared].transpose(0, 1))
    return SinkMass(
        torch.from_numpy(received).float(),
        lse,
        torch.from_numpy(missing).float(),
        None if z is None else z.transpose(1, 2),
    )


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
