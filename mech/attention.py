"""Entries of the attention pattern, from what `Heads` keeps and without its T × T entries."""

import numpy as np
from jaxtyping import Float, Int

from mech.errors import BadInput
from mech.trace import Heads


def pattern_columns(
    heads: Heads, keys: Int[np.ndarray, " column"]
) -> Float[np.ndarray, "batch head query column"]:
    """pattern[b, h, q, keys[c]]: what every query of every head pays to these keys.

    Memory and time grow with T × columns. Raises BadInput where a key lies outside the sequence.
    """
    n_keys = heads.key.shape[2]
    if len(keys) and not 0 <= keys.min() <= keys.max() < n_keys:
        raise BadInput(f"keys {keys.min()} to {keys.max()} asked of a sequence of {n_keys} tokens")
    seen = (heads.low[..., None] <= keys) & (keys <= heads.high[..., None])
    logits = _logits(heads, heads.query, heads.key[:, :, keys])
    # Unseen entries may overflow, and the lse of a query that sees nothing is −inf.
    with np.errstate(over="ignore", invalid="ignore"):
        pattern = np.exp(logits - heads.lse[..., None])
    return np.where(seen[:, None], pattern, pattern.dtype.type(0))


def pattern_rows(
    heads: Heads, queries: Int[np.ndarray, " row"]
) -> Float[np.ndarray, "batch head row key"]:
    """pattern[b, h, queries[r], k]: what these queries of every head pay to every key.

    Memory and time grow with T × rows. Raises BadInput where a query lies outside the sequence.
    """
    n_queries, n_keys = heads.query.shape[2], heads.key.shape[2]
    if len(queries) and not 0 <= queries.min() <= queries.max() < n_queries:
        raise BadInput(
            f"queries {queries.min()} to {queries.max()} asked of a sequence of {n_queries} tokens"
        )
    low, high = (bound[:, queries, None] for bound in (heads.low, heads.high))
    seen = ((low <= np.arange(n_keys)) & (np.arange(n_keys) <= high))[:, None]
    logits = np.where(seen, _logits(heads, heads.query[:, :, queries], heads.key), -np.inf)
    # A row has all its logits here. exp(logit − lse) would carry the rounding of lse, eps · |lse|.
    sink = -np.inf if heads.sink is None else heads.sink[:, None, None]
    peak = np.maximum(logits.max(axis=-1, keepdims=True), sink)
    with np.errstate(invalid="ignore"):  # a query that sees nothing: −∞ − (−∞)
        weights = np.exp(logits - peak)
        total = weights.sum(axis=-1, keepdims=True) + np.exp(sink - peak)
        return np.where(seen, weights / total, weights.dtype.type(0))


def _logits(heads: Heads, query: np.ndarray, key: np.ndarray) -> np.ndarray:
    batch, n_heads, n_queries, d_key = query.shape
    # Consecutive query heads share a key head, so the groups are a reshape and not a copy.
    grouped = query.reshape(batch, key.shape[1], -1, n_queries, d_key)
    logits = (grouped @ key[:, :, None].swapaxes(-1, -2)).reshape(batch, n_heads, n_queries, -1)
    logits *= heads.scaling
    return logits if heads.softcap is None else heads.softcap * np.tanh(logits / heads.softcap)
