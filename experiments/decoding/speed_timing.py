"""Times of ways that take turns, in one process: ratios of pairs, and what memory can give."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float

from experiments.intervals import RESAMPLES, Interval

BUFFER = 384 * 2**20
"""Bytes: far more than any cache."""


def median(values: Float[np.ndarray, " pairs"], *, seed: int = 0) -> Interval:
    """The median of the pairs with the percentile bootstrap's 95% interval.

    A scheduler that takes a core away makes single pairs absurd; a mean would report it.
    """
    n = len(values)
    draws = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    low, high = np.quantile(np.median(values[draws], axis=1), [0.025, 0.975])
    return Interval(float(np.median(values)), float(low), float(high), n)


def in_turn(
    ways: Mapping[str, Callable[[], object]], rounds: int, *, seed: int = 0
) -> dict[str, list[float]]:
    """Seconds of each way in each round; their order is drawn anew every round."""
    order = np.random.default_rng(seed)
    names, found = list(ways), {name: [] for name in ways}
    for _ in range(rounds):
        for index in order.permutation(len(names)):
            name = names[index]
            started = time.perf_counter()
            ways[name]()
            found[name].append(time.perf_counter() - started)
    return found


def bandwidth(repeats: int = 5) -> float:
    """Bytes a second that this process reads from memory, summing what no cache holds; the best."""
    memory = torch.ones(BUFFER // 4)
    memory.sum()
    return BUFFER / min(in_turn({"sum": memory.sum}, repeats)["sum"])


def fastest(ways: Mapping[str, Sequence[Callable[[], object]]]) -> str:
    """The way whose calls, one for each of many matrices, take least in the median of rounds."""
    names = list(ways)
    whole = {name: (lambda calls=calls: [c() for c in calls]) for name, calls in ways.items()}
    for run in whole.values():
        run()
    took = in_turn(whole, 5)
    return min(names, key=lambda name: float(np.median(took[name])))
