"""Which keys a sink may be looked for at, when padding, windows or chunks keep queries from keys.

r_k is the number of queries that see key k. A head without any preference gives key k
u_k = Σ_q 1 / (number of keys that q sees), the sum over the r_k queries that see it, and so has
α = u_k / r_k there. A key is *countable* where more than SUPPORT queries see it and that null
stays below ε by a quarter: u_k / r_k ≤ ¾ ε.

For full causal attention at ε = 0.1 the second condition is T ≥ 64 at the first key
(H_T / T ≤ 0.075), the limit of `sinks.SHORTEST`. Behind a window of w the first keys of a text are
those of a text of w tokens: for w < 44 uniform attention makes a "sink" of the first, for w ≤ 30
also of the second, however long the text is. The same holds at every chunk's start.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mech.errors import BadInput
from mech.probes.sinks import EPSILON, SUPPORT, sinks

NULL = 0.75
"""The largest share of ε that a head without preference may reach at a key that is counted."""


class Counted(NamedTuple):
    """Sinks of one block, each sequence and query head by itself.

    first: the first real token. later: keys after it that more than `support` queries see.
    later_raw: all keys after it. total_raw: all.
    """

    first: Bool[np.ndarray, "batch head"]
    later: Int[np.ndarray, "batch head"]
    later_raw: Int[np.ndarray, "batch head"]
    total_raw: Int[np.ndarray, "batch head"]


def first_real(real: Bool[np.ndarray, "batch seq"]) -> Int[np.ndarray, " batch"]:
    """The primary sink's place: the first token of each sequence that is not padding."""
    if not real.any(axis=1).all():
        empty = int(np.argmin(real.any(axis=1)))
        raise BadInput(f"sequence {empty} has no real token: leave it out of the batch")
    return real.argmax(axis=1)


def causal_reach(real: Bool[np.ndarray, "batch seq"]) -> Int[np.ndarray, "batch key"]:
    """The real queries at or after each real key: equation 1's divisor, without padding."""
    later = np.cumsum(real[:, ::-1], axis=1)[:, ::-1]
    return np.where(real, later, 0)


def null_received(
    low: Int[np.ndarray, "batch seq"],
    high: Int[np.ndarray, "batch seq"],
    real: Bool[np.ndarray, "batch seq"],
) -> Float[np.ndarray, "batch key"]:
    """u_k: what a head that attends uniformly to the keys low..high of each query gives each key.

    Queries that are padding, or whose interval is empty (high < low), give nothing.
    """
    batch, seq = low.shape
    gives = np.where(real & (high >= low), 1.0 / np.maximum(high - low + 1, 1), 0.0)
    ends = np.zeros((batch, seq + 1))
    rows = np.arange(batch)[:, None]
    np.add.at(ends, (rows, np.clip(low, 0, seq)), gives)
    np.subtract.at(ends, (rows, np.clip(high + 1, 0, seq)), gives)
    return ends[:, :seq].cumsum(axis=1)


def later_keys(
    real: Bool[np.ndarray, "batch seq"], reach: Int[np.ndarray, "batch key"], support: int = SUPPORT
) -> Bool[np.ndarray, "batch key"]:
    """Real keys after the first that more than `support` queries see: `sinks.guarded` with reach.

    On a batch without padding or windows it is that guard, sequence by sequence.
    """
    after = np.arange(real.shape[1]) > first_real(real)[:, None]
    return after & real & (reach > support)


def countable(
    reach: Int[np.ndarray, "batch key"],
    null: Float[np.ndarray, "batch key"],
    *,
    epsilon: float = EPSILON,
    support: int = SUPPORT,
) -> Bool[np.ndarray, "batch key"]:
    """r_k > support and u_k / r_k ≤ ¾ ε: where α above ε says something about the head."""
    return (reach > support) & (null <= NULL * epsilon * np.maximum(reach, 1))


def count_block(
    alpha: Float[np.ndarray, "batch head key"],
    real: Bool[np.ndarray, "batch key"],
    allowed: Bool[np.ndarray, "batch key"],
    epsilon: float = EPSILON,
) -> Counted:
    """Sinks of a block; `allowed` are the later keys that count as guarded."""
    found = sinks(alpha, epsilon) & real[:, None]
    rows = np.arange(len(real))
    first = first_real(real)
    at_first = found[rows, :, first]
    total = found.sum(axis=-1)
    # The first token is never a later one, whatever the caller allows.
    others = allowed & (np.arange(real.shape[1]) != first[:, None])
    later = (found & others[:, None]).sum(axis=-1)
    return Counted(at_first, later, total - at_first, total)
