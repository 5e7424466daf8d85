"""Which sink caught a token, and whether tokens caught together lie together.

η² = Σ_g n_g |μ_g - μ|² / Σ_i |x_i - μ|²: the share of the vectors' variance that lies between
groups (Fisher's correlation ratio). Sinks cut a text into contiguous segments and neighbours are
alike anyway, so η² means something only beside that of random contiguous segments.
"""

import numpy as np
from jaxtyping import Float, Int

from mech.probes.clusters import contiguous


def caught_by(
    pattern: Float[np.ndarray, "query key"],
    sinks: Int[np.ndarray, " sink"],
    *,
    least: float = 0.0,
) -> Int[np.ndarray, " query"]:
    """argmax over sinks of pattern[query, sink]: the index in `sinks` of each query's sink.

    -1, no sink, where the largest is below `least`. Without a `least` a query that stands before
    every sink, and sees none of them, is given the first.
    """
    columns = pattern[:, sinks]
    return np.where(columns.max(axis=1) >= least, columns.argmax(axis=1), -1)


def caught(
    pattern: Float[np.ndarray, "*head query key"], sinks: Int[np.ndarray, " sink"]
) -> Float[np.ndarray, "*head"]:
    """Σ_s pattern[q, s], mean over the queries q after the first of `sinks`: the share caught.

    NaN where no query comes after it.
    """
    after = pattern[..., sinks.min() + 1 :, :][..., sinks].sum(axis=-1)
    empty = np.full(after.shape[:-1], np.nan)
    return after.mean(axis=-1) if after.shape[-1] else empty


def variance_explained(
    vectors: Float[np.ndarray, "seq d"], labels: Int[np.ndarray, " seq"]
) -> float:
    """η² of the groups that `labels` names, in [0, 1]; NaN for vectors that are all equal."""
    centred = vectors - vectors.mean(axis=0)
    total = float((centred**2).sum())
    between = 0.0
    for label in np.unique(labels):
        group = centred[labels == label]
        between += len(group) * float((group.mean(axis=0) ** 2).sum())
    return between / total if total > 0 else float("nan")


def contiguous_null(
    vectors: Float[np.ndarray, "seq d"], groups: int, *, draws: int = 1000, seed: int = 0
) -> Float[np.ndarray, " draws"]:
    """η² of `draws` random cuts of the sequence into `groups` contiguous segments."""
    generator = np.random.default_rng(seed)
    cuts = (contiguous(len(vectors), groups, generator) for _ in range(draws))
    return np.array([variance_explained(vectors, cut) for cut in cuts])
