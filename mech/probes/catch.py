"""Which sink caught a token, and whether tokens caught together lie together.

η² = Σ_g n_g |μ_g - μ|² / Σ_i |x_i - μ|²: the share of the vectors' variance that lies between
groups (Fisher's correlation ratio). Sinks cut a text into contiguous segments and neighbours are
alike anyway, so η² means something only beside that of random contiguous segments.
"""

import numpy as np
from jaxtyping import Float, Int


def caught_by(
    pattern: Float[np.ndarray, "query key"], sinks: Int[np.ndarray, " sink"]
) -> Int[np.ndarray, " query"]:
    """argmax over sinks of pattern[query, sink]: the index in `sinks` of each query's sink.

    A query that stands before every sink sees none of them and is given the first.
    """
    return pattern[:, sinks].argmax(axis=1)


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
    positions = np.arange(len(vectors))
    values = []
    for _ in range(draws):
        cuts = np.sort(generator.choice(len(vectors) - 1, groups - 1, replace=False)) + 1
        values.append(variance_explained(vectors, np.searchsorted(cuts, positions, side="right")))
    return np.array(values)
