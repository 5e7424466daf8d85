"""Which initial signs succeed, and in which basin the found solutions end.

In the theorem W_V1 = [[0, 0], [0, -w]] with w > 0 and (W_Q2 W_K2^T)[1, 1] = d > 0. Another
construction of the same function has d < 0 and 0 < w < 1 / (s_tag - 1) (docs/theory.md, C4). So the
signs of w = -W_V1[1, 1], d, s_tag and s_num before the first step are candidates for what decides.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from toy.diagnose import Diagnosis, diagnose
from toy.sweep import Trial
from toy.train import finished
from toy.transformer import Weights

Basin = Literal["theorem", "negative d", "negative w", "both negative"]
BASINS: tuple[Basin, ...] = ("theorem", "negative d", "negative w", "both negative")
"""By the signs of (w, d): (+, +), (+, -), (-, +), (-, -)."""

SIGNS = ("w", "d", "s_tag", "s_num")


class Place(NamedTuple):
    """The numbers whose signs name a basin."""

    w: Float[np.ndarray, " seed"]
    d: Float[np.ndarray, " seed"]
    s_tag: Float[np.ndarray, " seed"]
    s_num: Float[np.ndarray, " seed"]


class Outcome(NamedTuple):
    """What became of the seeds of one cell."""

    found: Bool[np.ndarray, " seed"]
    finite: Bool[np.ndarray, " seed"]
    fvu: Float[np.ndarray, " seed"]
    start: Place
    end: Place


class Rate(NamedTuple):
    """A share of n and its 95% interval (Wilson 1927)."""

    hits: int
    n: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.hits}/{self.n} [{self.low:.2f}, {self.high:.2f}]"


def wilson(hits: int, n: int, z: float = 1.959964) -> Rate:
    """All p with |hits/n - p| <= z sqrt(p (1 - p) / n); the whole of [0, 1] for n = 0."""
    if n == 0:
        return Rate(hits, n, 0.0, 1.0)
    share, spread = hits / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z * np.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    low = 0.0 if hits == 0 else float(middle - half)  # exact, where rounding would leave 1e-17
    high = 1.0 if hits == n else float(middle + half)
    return Rate(hits, n, low, high)


def place(weights: Weights) -> Place:
    """(w, d, s_tag, s_num) of every seed, in float64."""
    W_V1, W_Q2, W_K2 = (
        np.asarray(w, np.float64) for w in (weights.W_V1, weights.W_Q2, weights.W_K2)
    )
    return Place(
        w=-W_V1[:, 1, 1],
        d=(W_Q2 @ W_K2.mT)[:, 1, 1],
        s_tag=np.asarray(weights.s_tag, np.float64),
        s_num=np.asarray(weights.s_num, np.float64),
    )


def basin(at: Place) -> Int[np.ndarray, " seed"]:
    """The place's number in `BASINS`; a zero counts as positive, NaN as negative."""
    return 2 * (~(at.w >= 0)).astype(int) + (~(at.d >= 0)).astype(int)


def outcome(trial: Trial, *, sequences: int) -> Outcome:
    """The trial's seeds, judged on `sequences` held-out sequences of its own data."""
    trained = finished(trial.training)
    seen: Diagnosis = diagnose(trained, sequences=sequences)
    return Outcome(seen.found, seen.finite, seen.fvu, place(trial.start), place(trained.weights))


def by_signs(start: Place, found: Bool[np.ndarray, " seed"]) -> list[Rate]:
    """Success for each of the 16 combinations of initial signs, (+, +, +, +) first."""
    code = np.zeros(len(found), int)
    for name in SIGNS:
        code = 2 * code + (getattr(start, name) < 0)
    return [wilson(int(found[code == c].sum()), int((code == c).sum())) for c in range(16)]
