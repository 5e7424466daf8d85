"""What one forward pass left behind, as plain arrays: the vocabulary of every probe.

Names follow TransformerLens (`resid`, `pattern`, `z`). Numpy only, so that a probe reads a JAX
toy and a PyTorch language model alike; the toy's own trace has fields of the same names.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class Trace(NamedTuple):
    """Activations of a causal transformer over a batch of sequences of one length.

    resid[0] enters block 0 and resid[l + 1] leaves block l, before any final norm, so
    depth = layer + 1. pattern[l, b, h, q, k] is the attention that query q pays to key k, for
    every *query* head h (grouped-query attention is expanded); rows sum to one, less what goes
    to a learned sink, and are zero where q is padding. z[l, b, h] = pattern[l, b, h] @ v, the
    head's output before W_O.
    """

    tokens: Int[np.ndarray, "batch seq"]
    resid: Float[np.ndarray, "depth batch seq d_model"]
    pattern: Float[np.ndarray, "layer batch head query key"]
    z: Float[np.ndarray, "layer batch head seq d_head"]


class Heads(NamedTuple):
    """The attention call: what any entry of the pattern can be computed from again.

    pattern[b, h, q, k] = exp(cap(scaling · query[b, h, q] · key[b, h // groups, k]) −
    lse[b, h, q]) where low[b, q] ≤ k ≤ high[b, q], else 0; cap(x) = softcap · tanh(x / softcap),
    or x without one. query and key as attention got them: positions rotated in, not scaled.
    high < low is a query that attends to nothing (padding); its lse is −inf. sink: the learned
    logits that take part in every sum, where a model has them (gpt-oss).
    """

    query: Float[np.ndarray, "batch head seq d_key"]
    key: Float[np.ndarray, "batch kv_head seq d_key"]
    value: Float[np.ndarray, "batch kv_head seq d_head"]
    lse: Float[np.ndarray, "batch head seq"]
    low: Int[np.ndarray, "batch seq"]
    high: Int[np.ndarray, "batch seq"]
    scaling: float
    softcap: float | None
    sink: Float[np.ndarray, " head"] | None = None


class BlockTrace(NamedTuple):
    """One block's arrays, while they are in memory.

    real[b, q] is False where token q is padding. resid_post = resid_pre + attn_write +
    mlp_write to rounding; both writes are None where a block does not add up so (a norm after
    the sum). received[b, h, k] = Σ_q pattern[b, h, q, k], and reach[b, k] is the number of
    queries that can see key k: all that equation 1 of the sink score needs, without the T × T
    entries. missing[b, h] is the mass that went to a learned sink. z is what W_O gets, changed
    where an intervention is active.
    """

    layer: int
    real: Bool[np.ndarray, "batch seq"]
    resid_pre: Float[np.ndarray, "batch seq d_model"]
    resid_post: Float[np.ndarray, "batch seq d_model"]
    attn_write: Float[np.ndarray, "batch seq d_model"] | None
    mlp_write: Float[np.ndarray, "batch seq d_model"] | None
    received: Float[np.ndarray, "batch head key"]
    reach: Int[np.ndarray, "batch key"]
    missing: Float[np.ndarray, "batch head"]
    z: Float[np.ndarray, "batch head seq d_head"]
    heads: Heads
