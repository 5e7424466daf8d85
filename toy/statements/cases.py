"""Sequences, weights and inputs to try a statement on: random ones, corners, and known enemies."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy.bounds import smallest_s_tag

LONGEST = 24
GROUP = 25
"""Inputs that share a sequence shape and weights."""


class Setting(NamedTuple):
    """One sequence shape, one bound on the numbers, one set of the theorem's weights."""

    T: int
    t: int
    X: float
    s_tag: float
    b: float = 0.0
    d: float = 1.0

    @property
    def at(self) -> dict[str, float]:
        """The weights, as the arguments of the theorem."""
        return {"s_tag": self.s_tag, "b": self.b, "d": self.d}


def groups(n: int, size: int = GROUP) -> Iterator[int]:
    """`size` as often as it takes to reach n."""
    yield from (size for _ in range(-(-n // size)))


def shape(
    rng: np.random.Generator, shortest: int = 2, t_least: int = 1, n_least: int = 1
) -> tuple[int, int]:
    """(T, t) with t >= t_least and T - t >= n_least; the extremes come often."""
    least = max(shortest, t_least + n_least)
    T = least if rng.random() < 0.1 else int(rng.integers(least, LONGEST + 1))
    inside = int(rng.integers(t_least, T - n_least + 1))
    return T, (t_least, T - n_least, inside)[rng.integers(3)]


def magnitude(rng: np.random.Generator) -> float:
    """X between 0.1 and 3, evenly in its logarithm."""
    return float(np.exp(rng.uniform(np.log(0.1), np.log(3))))


def setting(rng: np.random.Generator) -> Setting:
    """Weights with a guaranteed query: just above the least scale, or far above it."""
    T, t = shape(rng)
    X = magnitude(rng)
    b, d = float(rng.normal() * rng.integers(0, 2)), float(np.exp(1.5 * rng.normal()))
    least = smallest_s_tag(T, t, X, b=b, d=d)
    above = rng.uniform(0.01, 2) if rng.integers(2) else rng.uniform(0, X * X + 25)
    return Setting(T, t, X, float(least + above), b, d)


def inputs(
    rng: np.random.Generator, T: int, t: int, X: float, size: int = GROUP
) -> Float[np.ndarray, "case seq"]:
    """Interiors, corners, ties, tails, and inputs built against the proofs; 0 at [SEP]."""
    i = np.arange(1, T + 1)
    each, sign = (size, T), rng.choice([-1.0, 1.0], (size, 1))
    late = i > rng.integers(t, T + 1, (size, 1))
    kinds = np.stack(
        [
            rng.uniform(-X, X, each),
            rng.choice([-X, X], each),
            rng.choice([-X, 0.0, X], each),
            np.clip(X / 3 * rng.normal(size=each), -X, X),
            sign * np.broadcast_to(np.where(i <= t, X, -X), each),  # what leaks is farthest
            sign * np.broadcast_to(np.where((i <= t) | (i == T), X, -X), each),
            sign * np.full(each, X),  # every row is crowded
            sign * np.where(late, X, np.where(i <= t, X, 0.0)),  # some rows are crowded
            sign * np.where(late, X, -X),
        ]
    )
    x = kinds[rng.integers(len(kinds), size=size), np.arange(size)]
    x[:, t - 1] = 0.0
    return x


def over(
    measured: Float[np.ndarray, "*#any"] | float,
    proved: Float[np.ndarray, "*#any"] | float,
    rounding: Float[np.ndarray, "*#any"] | float = 0.0,
) -> Float[np.ndarray, "..."]:
    """max(0, measured - rounding) / proved; 0 where both underflow, and NaN in either stays NaN."""
    excess = np.asarray(measured) - rounding
    excess = np.where(excess <= 1e-300, 0.0, excess)
    ratio = np.where(excess == 0, 0.0, excess / np.maximum(proved, 1e-300))
    return np.where(np.isnan(proved), np.nan, ratio)


def worst(ratios: Float[np.ndarray, "case ..."]) -> Float[np.ndarray, " case"]:
    """The largest ratio of each case; 0 where a case has none, NaN where any is."""
    return ratios.reshape(len(ratios), -1).max(axis=1, initial=0.0)
