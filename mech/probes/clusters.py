"""Do two partitions agree? ARI = (index - expected) / (largest - expected).

The adjusted Rand index of Hubert & Arabie 1985, "Comparing Partitions", equation 5: 1 for equal
partitions whatever their names, 0 on average for partitions drawn at random with these sizes.
"""

import math

import numpy as np
from jaxtyping import Float, Int

RESTARTS = 10
ROUNDS = 100


def adjusted_rand(a: Int[np.ndarray, " item"], b: Int[np.ndarray, " item"]) -> float:
    """(Σ C(n_ij, 2) - e) / ((A + B) / 2 - e), A = Σ C(a_i, 2), B = Σ C(b_j, 2), e = AB / C(n, 2).

    n_ij counts the items in group i of one partition and group j of the other, a_i and b_j are
    its sums. NaN where both partitions are one group, or both single items: every index is then
    what chance gives.
    """
    _, rows = np.unique(a, return_inverse=True)
    _, columns = np.unique(b, return_inverse=True)
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1.0)
    together = _pairs(table).sum()
    in_a, in_b = (_pairs(table.sum(axis=axis)).sum() for axis in (1, 0))
    expected = in_a * in_b / math.comb(max(len(a), 2), 2)
    largest = (in_a + in_b) / 2
    return float((together - expected) / (largest - expected)) if largest > expected else np.nan


def kmeans(
    vectors: Float[np.ndarray, "item d"], groups: int, *, seed: int = 0, restarts: int = RESTARTS
) -> Int[np.ndarray, " item"]:
    """argmin over partitions of Σ_i |x_i - μ_g(i)|², as far as Lloyd's iterations find it.

    Best of `restarts` starts by k-means++ (Arthur & Vassilvitskii 2007), each until nothing
    changes. The same input and seed give the same labels.
    """
    generator = np.random.default_rng(seed)
    vectors = vectors - vectors.mean(axis=0, dtype=np.float64)
    found = [_lloyd(vectors, _start(vectors, groups, generator)) for _ in range(restarts)]
    return min(found, key=lambda each: each[0])[1]


def contiguous(items: int, groups: int, generator: np.random.Generator) -> np.ndarray:
    """Labels of a random cut of `items` in a row into `groups` segments, none of them empty."""
    cuts = np.sort(generator.choice(items - 1, groups - 1, replace=False)) + 1
    return np.searchsorted(cuts, np.arange(items), side="right")


def _pairs(count: np.ndarray) -> np.ndarray:
    return count * (count - 1) / 2


def _start(
    vectors: np.ndarray, groups: int, generator: np.random.Generator
) -> Float[np.ndarray, "group d"]:
    """Centres drawn from the vectors, each with chance ∝ its squared distance to those before."""
    centres = [vectors[generator.integers(len(vectors))]]
    for _ in range(groups - 1):
        distance = _squared(vectors, np.stack(centres)).min(axis=1)
        total = distance.sum()
        chance = distance / total if total > 0 else np.full(len(vectors), 1 / len(vectors))
        centres.append(vectors[generator.choice(len(vectors), p=chance)])
    return np.stack(centres)


def _lloyd(vectors: np.ndarray, centres: np.ndarray) -> tuple[float, np.ndarray]:
    """The sum of squares and the labels where the iterations stand still."""
    labels = np.full(len(vectors), -1)
    for _ in range(ROUNDS):
        nearest = _squared(vectors, centres).argmin(axis=1)
        if np.array_equal(nearest, labels):
            break
        labels = nearest
        for group in np.unique(labels):
            centres[group] = vectors[labels == group].mean(axis=0)
    return float(((vectors - centres[labels]) ** 2).sum()), labels


def _squared(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    squares = (vectors**2).sum(axis=-1)[:, None] + (centres**2).sum(axis=-1)
    return np.maximum(squares - 2 * vectors @ centres.T, 0)
