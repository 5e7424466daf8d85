"""What one forward pass left behind, as plain arrays: the vocabulary of every probe.

Names follow TransformerLens (`resid`, `pattern`, `z`). Numpy only, so that a probe reads a JAX
toy and a PyTorch language model alike; the toy's own trace has fields of the same names.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Trace(NamedTuple):
    """Activations of a causal transformer over a batch of sequences of one length.

    resid[0] enters block 0 and resid[l + 1] leaves block l, before any final norm, so
    depth = layer + 1. pattern[l, b, h, q, k] is the attention that query q pays to key k, for
    every *query* head h (grouped-query attention is expanded); rows sum to one.
    z[l, b, h] = pattern[l, b, h] @ v, the head's output before W_O.
    """

    tokens: Int[np.ndarray, "batch seq"]
    resid: Float[np.ndarray, "depth batch seq d_model"]
    pattern: Float[np.ndarray, "layer batch head query key"]
    z: Float[np.ndarray, "layer batch head seq d_head"]


class BlockTrace(NamedTuple):
    """One block's arrays, while they are in memory.

    received[b, h, k] = Σ_q pattern[b, h, q, k]: all of the pattern that equation 1 of the sink
    score needs, without its T × T entries.
    """

    layer: int
    resid_pre: Float[np.ndarray, "batch seq d_model"]
    resid_post: Float[np.ndarray, "batch seq d_model"]
    received: Float[np.ndarray, "batch head key"]
    z: Float[np.ndarray, "batch head seq d_head"]
