"""Two models, or two numbers of examples, on the same items: exact McNemar, paired bootstrap."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from experiments.intervals import Interval, interval


class Paired(NamedTuple):
    """The second's accuracy less the first's, items that only one of them has right, and p."""

    gain: Interval
    only_first: int
    only_second: int
    p: float


def paired(first: Bool[np.ndarray, " items"], second: Bool[np.ndarray, " items"]) -> Paired:
    """mean(second - first) with its bootstrap over items, and McNemar's exact two-sided p.

    p = min(1, 2 Σ_{i <= min(b, c)} C(b + c, i) / 2^(b + c)), b and c the items that only one has
    right: under no difference each of them falls to either side alike (McNemar 1947; exact, by
    the binomial). Without such items p is 1.

    Raises:
        ValueError: different numbers of items.
    """
    if first.shape != second.shape:
        raise ValueError(f"{first.shape} and {second.shape}: answers to the same items are paired")
    gain = interval(second.astype(float) - first.astype(float))
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    return Paired(gain, b, c, mcnemar(b, c))


def mcnemar(b: int, c: int) -> float:
    """The p of `paired` from the two counts, by whole numbers: exact to the last digit."""
    n = b + c
    tail = sum(math.comb(n, i) for i in range(min(b, c) + 1))
    return min(1.0, 2 * tail / 2**n)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """p adjusted for their number: max over smaller ones of (m - rank) p, at most 1 (Holm 1979).

    What is below α of the adjusted ones holds together, with a wrong one among them in at most
    a share α of studies, whatever the tests have to do with each other.
    """
    found, least = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda key: (p[key], key))):
        least = max(least, min(1.0, (len(p) - rank) * p[name]))
        found[name] = least
    return {name: found[name] for name in p}
