"""How far Theorem B lies above the error of a typical input, and why that does not depend on s.

With d = 1 the leak is e^{-(s-1)^2} and what remains is first order in e^{1-s} on both sides:

    B         ->  (X / 2) (s - 1)^2 e^{1-s} ((T - 1) e^{X^2} - 1 - (t - 1) e^{-X^2}),
    |f - m|   ->          (s - 1)^2 e^{1-s} |K|,   K = mean_j (c_j - c)(x_j - m)  (`linear`),

so that B / |f - m| tends to kappa(x) = X ((T - 1) e^{X^2} - 1 - (t - 1) e^{-X^2}) / (2 |K|), which
is a number of the input alone: the right rate, a worst case's constant. X is max |x_i| of each.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy.bounds import error_bound
from toy.laws.linear import unevenness
from toy.laws.residuals import crowds, residuals
from toy.laws.tails import Sequences, draw


class Typical(NamedTuple):
    """Median of B / |f - m| over inputs with n > 1 whose bound says something (B < X)."""

    tail: str
    s_tag: Float[np.ndarray, " scale"]
    ratio: Float[np.ndarray, " scale"]
    low: Float[np.ndarray, " scale"]  # 95%, order statistics
    high: Float[np.ndarray, " scale"]
    predicted: Float[np.ndarray, " scale"]  # median of kappa over the same inputs
    share: Float[np.ndarray, " scale"]  # of the inputs, that have B < X
    sequences: int


def kappa(sequences: Sequences) -> Float[np.ndarray, " case"]:
    """The limit of B / |f - m| at d = 1, for n > 1."""
    X = np.abs(sequences.x).max(axis=1)
    T, t = sequences.last.astype(float), sequences.t.astype(float)
    constant = (T - 1) * np.exp(X**2) - 1 - (t - 1) * np.exp(-(X**2))
    return X * constant / (2 * np.abs(unevenness(crowds(sequences))))


def typical(
    tail: str, s_tag: Float[np.ndarray, " scale"], *, sequences: int = 1000, seed: int = 0
) -> Typical:
    """Measure and predict at d = 1, b = 0. Raises as `draw` and `error_bound`."""
    drawn = draw(np.random.default_rng(seed), tail, sequences)
    drawn = Sequences(*(field[drawn.last - drawn.t > 1] for field in drawn))
    seen, limit = crowds(drawn), kappa(drawn)
    X = np.abs(drawn.x).max(axis=1)
    inputs = list(zip(drawn.last.tolist(), drawn.t.tolist(), X.tolist(), strict=True))
    rows = []
    for s in s_tag.tolist():
        bound = np.array([error_bound(T, t, x, s_tag=s) for T, t, x in inputs])
        told = bound < X
        found = np.sort((bound / np.abs(residuals(seen, s_tag=s)))[told])
        half = 0.98 * np.sqrt(len(found))  # 1.96 / 2 standard deviations of the median's rank
        low, high = np.clip([len(found) / 2 - half, len(found) / 2 + half], 0, len(found) - 1)
        rows.append(
            (np.median(found), found[int(low)], found[int(high)], np.median(limit[told]), told)
        )
    ratio, low, high, predicted, told = zip(*rows, strict=True)
    share = np.mean(told, axis=1)
    columns = (np.array(column) for column in (ratio, low, high, predicted))
    return Typical(tail, s_tag, *columns, share=share, sequences=len(inputs))
