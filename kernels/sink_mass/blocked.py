"""The definition in blocks of queries, for the dtypes that the compiled pass does not know."""

import torch
from torch import Tensor

from ctr_kernels.sink_mass.arguments import intervals
from ctr_kernels.sink_mass.reference import SinkMass
from ctr_kernels.sink_mass.reference import sink_mass as definition

# Scores in one block: 16 MiB in float64, and a few arrays of that size beside them.
SCORES = 2**21


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
    low, high = intervals(query, key, low, high)
    step = max(1, SCORES // max(1, batch * heads * key.shape[2]))
    parts = [
        definition(
            query[:, :, start : start + step],
            key,
            value,
            scaling=scaling,
            low=low[:, start : start + step],
            high=high[:, start : start + step],
            softcap=softcap,
            sink=sink,
        )
        for start in range(0, max(queries, 1), step)
    ]
    received, lse, missing, z = zip(*parts, strict=True)
    return SinkMass(
        torch.stack(received).sum(dim=0),
        torch.cat(lse, dim=2),
        torch.stack(missing).sum(dim=0),
        None if value is None else torch.cat(z, dim=2),
    )
