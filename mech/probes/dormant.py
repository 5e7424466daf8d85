"""Dormant heads: those that write next to nothing on this prompt, by their attention or output.

By attention (Guo et al. 2024, arXiv:2410.13835, "active-dormant": a head is dormant on the inputs
on which it is a sink and active on the others): the mean attention that its queries pay to the
first token exceeds RESTING. By output (Sandoval-Segura et al. 2025, arXiv:2504.03889, version 1
"HONOR", later "average head output norm" over the layer's):

    (mean_t ‖z_h,t‖) / (mean over the layer's heads of the same) < QUIET,      z = pattern @ v.

The first says where a head looks, the second whether it matters; the abstract of the last version
reports that the first misses heads that the second finds. The papers' abstracts were at hand and
not their formulas: the ratio is written from memory, and both limits are ours.
"""

import numpy as np
from jaxtyping import Bool, Float

RESTING = 0.9
QUIET = 0.5


def mass_on(
    received: Float[np.ndarray, "batch head key"],
    keys: Bool[np.ndarray, "batch key"],
    real: Bool[np.ndarray, "batch key"],
) -> Float[np.ndarray, "batch head"]:
    """Mean over the real queries of the attention they pay to `keys`, in [0, 1].

    With the first token as the only key it is α of equation 1 there, and the BOS-sink score
    (1/T) Σ_t A[t, 0] of arXiv:2601.06787.
    """
    queries = np.maximum(real.sum(axis=1), 1)[:, None]
    return (received * keys[:, None]).sum(axis=-1) / queries


def output_ratio(
    z: Float[np.ndarray, "batch head seq d_head"], real: Bool[np.ndarray, "batch seq"]
) -> Float[np.ndarray, "batch head"]:
    """mean_t ‖z_h,t‖ over its mean over the heads: 1 for a head like the others; NaN if all are 0.

    z is what a head reads, before W_O: the norm of what it writes is another one wherever W_O
    treats heads differently. Averages over the layer cannot tell that a whole layer is quiet.
    """
    norm = np.sqrt(np.einsum("bhtd,bhtd->bht", z, z)) * real[:, None]
    mean = norm.sum(axis=-1) / np.maximum(real.sum(axis=1), 1)[:, None]
    layer = mean.mean(axis=1, keepdims=True)
    return np.divide(mean, layer, out=np.full(mean.shape, np.nan, mean.dtype), where=layer > 0)


def resting(mass: Float[np.ndarray, "*axes"], limit: float = RESTING) -> Bool[np.ndarray, "*axes"]:
    """Dormant by attention: mass > limit."""
    return mass > limit


def quiet(ratio: Float[np.ndarray, "*axes"], limit: float = QUIET) -> Bool[np.ndarray, "*axes"]:
    """Dormant by output: ratio < limit, and not where the ratio is NaN."""
    return ratio < limit
