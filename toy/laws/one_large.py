"""The loss that one large number causes: the frontier's prediction for tails without a bound.

Let one number after [SEP] be x and all others ordinary (independent, mean 0, variance 1, r = 0).
Its own crowd is e^{x^2}, so r = e^{1 - s + x^2} and its weight falls to

    u = e^{-Q r / (1 + r)}  at a place before the last,  with leak p = e^{-Q};
    u = e^{-Q r / (1 + r)^2}  at the last place, where the query falls too: p = e^{-Q / (1 + r)}.

With Z = u + n - 1 + t p, f = (u x + S + p P) / Z for the sums S, P of the other numbers after and
before [SEP], and over those

    E[(f - m)^2 | x] = x^2 (u/Z - 1/n)^2 + (n - 1) (1/Z - 1/n)^2 + (t - 1) (p/Z)^2.

Summing its excess over u = 1, p = e^{-Q} over the n places gives the loss to leading order: two
large numbers are rarer by another factor of the tail. The threshold is x^2 = s - 1 - log Q, where
Q r = 1, so that the loss falls as the tail of x beyond its root: e^{-s/2} for Gaussian numbers,
e^{-sqrt(2 s)} for Laplace numbers.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy.errors import Refused
from toy.laws.search import least
from toy.laws.tails import TAILS
from toy.logs import quiet

POINTS = 801
"""Nodes of the trapezoid rule on [0, high]; twice as many change the loss by less than 1e-4."""


class Predicted(NamedTuple):
    """The least loss and the gain Q = d (s - 1)^2 that reaches it."""

    loss: float
    gain: float


def _conditional(
    x: Float[np.ndarray, " node"],
    u: Float[np.ndarray, " node"],
    p: Float[np.ndarray, " node"] | float,
    n: Float[np.ndarray, "shape 1"],
    t: Float[np.ndarray, "shape 1"],
) -> Float[np.ndarray, "shape node"]:
    Z = u + n - 1 + t * p
    return x**2 * (u / Z - 1 / n) ** 2 + (n - 1) * (1 / Z - 1 / n) ** 2 + (t - 1) * (p / Z) ** 2


def loss(tail: str, *, s_tag: float, gain: float, shortest: int = 16, longest: int = 32) -> float:
    """E[(f - m)^2] at the gain Q, to leading order in the rarity of a large number.

    Raises `Refused` for a tail with a bound, whose errors no single number causes.
    """
    if not np.isinf(TAILS[tail].edge):
        raise Refused(f"{tail} numbers are bounded: no single one is large; use `linear.loss`")
    n, t, share = _shapes(shortest, longest)
    x = np.linspace(0.0, np.sqrt(s_tag) + 12.0, POINTS)
    density = 2 * np.exp(TAILS[tail].log_density(x))  # both signs
    with quiet():
        a = 1 / (1 + np.exp(1 - s_tag + x**2))
        p = float(np.exp(-gain))
        middle = _conditional(x, np.exp(-gain * (1 - a)), p, n, t)
        last = _conditional(x, np.exp(-gain * a * (1 - a)), np.exp(-gain * a), n, t)
    usual = _conditional(x, np.ones_like(x), p, n, t)
    excess = np.trapezoid(density * ((n - 1) * (middle - usual) + last - usual), x, axis=1)
    typical = np.trapezoid(density * usual, x, axis=1)
    return float(share[:, 0] @ (typical + excess))


def _shapes(shortest: int, longest: int) -> Float[np.ndarray, "3 shape 1"]:
    """n, t and the probability of every (T, t)."""
    lengths = range(shortest, longest + 1)
    every = [(T - t, t, 1 / (T - 1) / len(lengths)) for T in lengths for t in range(1, T)]
    return np.array(every, dtype=np.float64).T[:, :, None]


def frontier(tail: str, s_tag: float, *, shortest: int = 16, longest: int = 32) -> Predicted:
    """min over Q of `loss`. Raises as it."""
    found = least(
        lambda log_gain: loss(
            tail, s_tag=s_tag, gain=float(np.exp(log_gain)), shortest=shortest, longest=longest
        ),
        np.log(0.5),
        np.log(4 * s_tag),
    )
    return Predicted(found.value, float(np.exp(found.at)))
