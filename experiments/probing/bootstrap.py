"""Intervals over prompts of things that some prompts do not have, and of correlations."""

import numpy as np
from jaxtyping import Float

from experiments.intervals import Interval, interval
from mech.probes.rank import spearman

RESAMPLES = 1000


def over_prompts(values: Float[np.ndarray, " prompt"]) -> Interval | None:
    """Mean and 95 % bootstrap interval over the prompts that have a value; None below two."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    return interval(values) if len(values) > 1 else None


def rank_correlation(
    x: list[Float[np.ndarray, " _"]], y: list[Float[np.ndarray, " _"]], *, seed: int = 0
) -> Interval | None:
    """Spearman's ρ of the units of all prompts, with an interval from resampling whole prompts.

    Units of one prompt are correlated, so prompts are drawn and not units. None below two
    prompts with units, where ρ is not defined, and where it is not in one of twenty resamples:
    a ρ that hangs on one prompt has no interval.
    """
    full = [i for i, units in enumerate(x) if len(units)]
    if len(full) < 2:
        return None
    x, y = [x[i] for i in full], [y[i] for i in full]
    found = spearman(np.concatenate(x), np.concatenate(y))
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(x), len(x))
        draws.append(
            spearman(np.concatenate([x[i] for i in drawn]), np.concatenate([y[i] for i in drawn]))
        )
    if not np.isfinite(found) or np.isfinite(draws).mean() < 0.95:
        return None
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return Interval(found, float(low), float(high), len(x))
