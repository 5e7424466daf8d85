"""Do vectors group by the sink that caught their tokens? η² and ARI, each beside its nulls.

Sinks cut a text into contiguous segments, and neighbours in a text are alike whatever a sink does:
shuffled labels are a null that nearly every array beats. The honest one is a random cut into as
many contiguous segments.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mech.probes.catch import contiguous_null, variance_explained
from mech.probes.clusters import adjusted_rand, contiguous, kmeans

DRAWS = 100
FEWEST = 3  # tokens of a group


class Grouping(NamedTuple):
    """One array of vectors against one labelling.

    eta2 and ari: of the sinks. The others are means over random labellings: contiguous segments,
    as many as there are groups, and for ari also the sinks' labels in random order.
    """

    eta2: float
    eta2_contiguous: float
    ari: float
    ari_contiguous: float
    ari_shuffled: float


def usable(labels: Int[np.ndarray, " seq"]) -> Int[np.ndarray, " token"] | None:
    """Tokens of the groups of FEWEST or more, labels below 0 left out; None for less than two."""
    names, count = np.unique(labels[labels >= 0], return_counts=True)
    kept = names[count >= FEWEST]
    return np.flatnonzero(np.isin(labels, kept)) if len(kept) > 1 else None


def grouping(
    vectors: Float[np.ndarray, "seq d"],
    labels: Int[np.ndarray, " seq"],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Grouping:
    """η² of the labels and ARI of k-means with them, k their number; every token is used."""
    groups = len(np.unique(labels))
    # Rotations change neither; this one makes wide streams as narrow as they are long.
    vectors = _narrow(vectors)
    found = kmeans(vectors, groups, seed=seed)
    generator = np.random.default_rng(seed)
    cuts = [contiguous(len(labels), groups, generator) for _ in range(draws)]
    mixed = [generator.permutation(labels) for _ in range(draws)]
    return Grouping(
        eta2=variance_explained(vectors, labels),
        eta2_contiguous=float(contiguous_null(vectors, groups, draws=draws, seed=seed).mean()),
        ari=adjusted_rand(found, labels),
        ari_contiguous=float(np.mean([adjusted_rand(found, cut) for cut in cuts])),
        ari_shuffled=float(np.mean([adjusted_rand(found, each) for each in mixed])),
    )


def survival(
    states: Float[np.ndarray, "depth seq d"], labels: Int[np.ndarray, " seq"], *, draws: int = DRAWS
) -> list[Grouping]:
    """The same labels in the stream at every depth: where the groups are, how long they last."""
    return [grouping(vectors, labels, draws=draws) for vectors in states]


def _narrow(vectors: Float[np.ndarray, "seq d"]) -> Float[np.ndarray, "seq narrow"]:
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    if centred.shape[1] <= centred.shape[0]:
        return centred
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    return left * singular
