"""The definition in blocks of queries, for the dtypes that the compiled pass does not know."""

import torch
from torch import Tensor

from ctr_kernels.sink_mass.arguments import intervals
from ctr_kernels.sink_mass.reference import SinkMass
from ctr_kernels.sink_mass.reference import sink_mass as definition

# Scores in one block: 8 MiB in float64, and a few arrays of that size beside them.
SCORES = 2**20


def by_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    *,
    scaling: float,
    low: Tensor | None,
    high: Tensor | None,
    softcap: float | None,
    sink: Tensor | None,
) -> SinkMass:
    """As the definition: queries do not see one another, so their sums may be taken apart."""
    batch, heads, queries, _ = query.shape
    keys = key.shape[2]
    low, high = intervals(query, key, low, high)
    step = max(1, SCORES // max(1, batch * heads * keys))
    # Filled in place: small results kept between large blocks would leave holes that no large
    # block fits into.
    received = query.new_zeros(batch, heads, keys)
    lse = query.new_full((batch, heads, queries), -torch.inf)
    missing = query.new_zeros(batch, heads)
    z = None if value is None else query.new_zeros(batch, heads, queries, value.shape[3])
    for start in range(0, queries, step):
        at = slice(start, start + step)
        part = definition(
            query[:, :, at],
            key,
            value,
            scaling=scaling,
            low=low[:, at],
            high=high[:, at],
            softcap=softcap,
            sink=sink,
        )
        received += part.received
        lse[:, :, at] = part.lse
        missing += part.missing
        if z is not None and part.z is not None:
            z[:, :, at] = part.z
    return SinkMass(received, lse, missing, z)
