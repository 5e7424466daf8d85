"""How sure: means over independent units (windows, sequences, seeds) with bootstrap intervals."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

RESAMPLES = 10_000


class Interval(NamedTuple):
    """A mean, its 95% bootstrap interval, and how many units it rests on."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def interval(values: Float[np.ndarray, " units"], *, seed: int = 0) -> Interval:
    """Mean of the units with the percentile bootstrap's 95% interval (Efron, 1979).

    Tokens of one window are correlated, so the units are whole windows. For a paired
    difference pass the differences.
    """
    n = len(values)
    draws = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    means = values[draws].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high), n)
