"""Shares of the dense model's sinks, with intervals over sequences, and paired differences of them.

A share of sinks is a ratio of two sums over sequences: what a sequence has of both is drawn
together, so that a sequence with many sinks weighs as much in the interval as in the share.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from experiments.intervals import RESAMPLES, Interval
from mech.probes.sinks import guarded

ENOUGH = 0.95  # of the resamples must have something to take a share of


class Ratio(NamedTuple):
    """Σ part / Σ whole over sequences."""

    part: Float[np.ndarray, " sequences"]
    whole: Float[np.ndarray, " sequences"]


class Ratios(NamedTuple):
    """Of the dense model's sinks those that are left (recall), of those found the dense ones."""

    first_recall: Ratio
    first_precision: Ratio
    later_recall: Ratio
    later_precision: Ratio


class Recalls(NamedTuple):
    """The same with intervals; None where there is nothing to take a share of."""

    first_recall: Interval | None
    first_precision: Interval | None
    later_recall: Interval | None
    later_precision: Interval | None


def ratios(
    found: Bool[np.ndarray, "layer sequences head key"],
    dense: Bool[np.ndarray, "layer sequences head key"],
) -> Ratios:
    """Counts of each sequence, first tokens and guarded later ones apart."""
    later = guarded(found.shape[-1])
    first = found[..., :1], dense[..., :1]
    return Ratios(*_both(*first), *_both(found[..., later], dense[..., later]))


def recalls(counts: Ratios) -> Recalls:
    """Every share with its interval."""
    return Recalls(*(share(ratio) for ratio in counts))


def share(ratio: Ratio, *, seed: int = 0) -> Interval | None:
    """Σ part / Σ whole and the percentile bootstrap's 95% interval over sequences."""
    return _interval(_point(ratio), _drawn(ratio, seed), len(ratio.part))


def difference(a: Ratio, b: Ratio, *, seed: int = 0) -> Interval | None:
    """Share of `b` less share of `a`, of the same sequences: drawn together, in pairs."""
    return _interval(_point(b) - _point(a), _drawn(b, seed) - _drawn(a, seed), len(a.part))


def clear(interval: Interval | None) -> int:
    """+1 or -1, the sign of what the interval says is not zero; 0 where it does not say."""
    if interval is None:
        return 0
    return int(interval.low > 0) - int(interval.high < 0)


def shown(interval: Interval | None) -> str:
    """A share with its interval, two decimals; a dash where there was nothing to share."""
    if interval is None:
        return "–"
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _both(found: np.ndarray, dense: np.ndarray) -> tuple[Ratio, Ratio]:
    def count(flags: np.ndarray) -> np.ndarray:
        return flags.sum(axis=(0, 2, 3)).astype(np.float64)

    hits = count(found & dense)
    return Ratio(hits, count(dense)), Ratio(hits, count(found))


def _point(ratio: Ratio) -> float:
    whole = ratio.whole.sum()
    return float(ratio.part.sum() / whole) if whole else float("nan")


def _drawn(ratio: Ratio, seed: int) -> Float[np.ndarray, " draws"]:
    n = len(ratio.part)
    draws = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    part, whole = ratio.part[draws].sum(axis=1), ratio.whole[draws].sum(axis=1)
    return np.divide(part, whole, out=np.full(RESAMPLES, np.nan), where=whole > 0)


def _interval(point: float, draws: np.ndarray, n: int) -> Interval | None:
    if not np.isfinite(point) or np.isfinite(draws).mean() < ENOUGH:
        return None
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return Interval(point, float(low), float(high), n)
