"""The definition, with the whole pattern in memory."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ctr_kernels.sink_mass.arguments import check, intervals


class SinkMass(NamedTuple):
    """What every key received, and what else a pass over the scores leaves.

    received[b, h, k] = Σ_q A[q, k]. lse[b, h, q] = log Σ_k exp(logit), the learned sink's
    logit included; −inf for a query that sees no key. missing[b, h] = Σ_q (1 − Σ_k A[q, k]) over
    the queries that see a key: what went to the learned sink, 0 without one. z[b, h, q] =
    Σ_k A[q, k] v[k] where values were given, zero for a query that sees nothing.
    """

    received: Float[Tensor, "batch head key"]
    lse: Float[Tensor, "batch head query"]
    missing: Float[Tensor, "batch head"]
    z: Float[Tensor, "batch head query d_head"] | None


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
    """A[q, k] = exp(logit[q, k]) / (exp(sink) + Σ_j exp(logit[q, j])) over low_q ≤ k ≤ high_q.

    logit = scaling · q·k, softly capped where asked: c·tanh(logit / c). Query q sees the keys
    from low[q] to high[q], both included: causal attention (high = q + keys − queries, the
    default, and low = 0), sliding windows and chunks (low > 0), padding on the left (low) are
    all intervals; high < low is a query that is left out. Key and value heads are shared by
    consecutive query heads (Ainslie et al. 2023, arXiv:2305.13245). `sink` is a learned logit a
    head (Agarwal et al. 2025, arXiv:2508.10925). Half precision is computed in float32.
    """
    check(query, key, value, low, high, softcap, sink)
    dtype = torch.promote_types(query.dtype, torch.float32)
    groups = query.shape[1] // key.shape[1]
    n_keys = key.shape[2]
    low, high = intervals(query, key, low, high)
    keys = torch.arange(n_keys, device=query.device)
    # [#batch, 1, query, key]
    seen = ((low[..., None] <= keys) & (keys <= high[..., None]))[:, None]
    logits = query.to(dtype) @ key.to(dtype).repeat_interleave(groups, dim=1).mT * scaling
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits.masked_fill(~seen, float("-inf"))
    sees = seen.any(dim=-1)
    if sink is not None:
        column = sink.to(dtype)[None, :, None, None].expand(*logits.shape[:3], 1)
        logits = torch.cat([logits, column.masked_fill(~sees[..., None], float("-inf"))], dim=-1)
    lse = logits.logsumexp(dim=-1)
    pattern = torch.where(sees[..., None], (logits - lse[..., None]).exp(), 0.0)
    missing = pattern[..., n_keys:].sum(dim=(-1, -2))
    pattern = pattern[..., :n_keys]
    z = None if value is None else pattern @ value.to(dtype).repeat_interleave(groups, dim=1)
    return SinkMass(pattern.sum(dim=2), lse, missing, z)
