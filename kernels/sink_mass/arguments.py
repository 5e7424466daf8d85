"""What every implementation asks of its arguments before it computes."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def check(
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    low: Tensor | None,
    high: Tensor | None,
    softcap: float | None,
    sink: Tensor | None,
) -> None:
    """Raises ValueError, one line, where shapes or numbers do not fit together."""
    batch, heads, queries, d_key = query.shape
    kv_heads = key.shape[1]
    if kv_heads == 0 or heads % kv_heads:
        raise ValueError(f"sink_mass: {heads} query heads over {kv_heads} key heads: no multiple")
    if (key.shape[0], key.shape[3]) != (batch, d_key):
        raise ValueError(f"sink_mass: key {tuple(key.shape)} for query {tuple(query.shape)}")
    if value is not None and value.shape[:3] != key.shape[:3]:
        raise ValueError(f"sink_mass: value {tuple(value.shape)} for key {tuple(key.shape)}")
    for name, edge in (("low", low), ("high", high)):
        if edge is not None and tuple(edge.shape) not in {(1, queries), (batch, queries)}:
            raise ValueError(
                f"sink_mass: {name} {tuple(edge.shape)}: one number a query, {(batch, queries)}"
            )
    if softcap is not None and not softcap > 0:
        raise ValueError(f"sink_mass: softcap={softcap}: a positive number, or None")
    if sink is not None and tuple(sink.shape) != (heads,):
        raise ValueError(f"sink_mass: sink {tuple(sink.shape)}: one logit a head, of {heads}")


def intervals(
    query: Float[Tensor, "batch head query d_key"],
    key: Float[Tensor, "batch kv_head key d_key"],
    low: Int[Tensor, "#batch query"] | None,
    high: Int[Tensor, "#batch query"] | None,
) -> tuple[Int[Tensor, "_b query"], Int[Tensor, "_b query"]]:
    """The first and the last key of every query, clipped to keys that there are.

    Causal where nothing is said: the last query sees the last key.
    """
    queries, keys = query.shape[2], key.shape[2]
    at = torch.arange(queries, device=query.device)[None]
    low = torch.zeros_like(at) if low is None else low.clamp(min=0)
    high = (at + (keys - queries) if high is None else high).clamp(max=keys - 1)
    return low, high
