"""Numbers by the weight of their tail, and sequences that meet it more often than they should.

An error that only one input in e^{s/2} shows is never drawn from the numbers' own distribution p.
Number i therefore comes from (1 - e_i) p + e_i g, g uniform on low <= |x| <= high, and a sequence
carries the likelihood ratio

    prod over its numbers of p(x_i) / ((1 - e_i) p(x_i) + e_i g(x_i))  <=  prod of 1 / (1 - e_i),

which makes weighted means unbiased for p (a defensive mixture: Hesterberg, 1995). e_i is 1/2 over
the count of numbers after [SEP] for those, and 1/4 over the count before it for the others: the
ratio stays below 2.7, so that no typical sequence can carry the estimate.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from toy.errors import NoSegment, Refused
from toy.logs import quiet

ROOT3 = float(np.sqrt(3.0))
ROOT2 = float(np.sqrt(2.0))


class Tail(NamedTuple):
    """A distribution with mean 0 and variance 1."""

    log_density: Callable[[Float[np.ndarray, "*any"]], Float[np.ndarray, "*any"]]
    draw: Callable[[np.random.Generator, tuple[int, ...]], Float[np.ndarray, "*any"]]
    edge: float  # sup |x|


def _uniform(x: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    return np.where(np.abs(x) <= ROOT3, -np.log(2 * ROOT3), -np.inf)


def _gaussian(x: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    return -(x**2) / 2 - np.log(2 * np.pi) / 2


def _laplace(x: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    return -ROOT2 * np.abs(x) - np.log(ROOT2)


TAILS = {
    "uniform": Tail(_uniform, lambda rng, shape: rng.uniform(-ROOT3, ROOT3, shape), ROOT3),
    "gaussian": Tail(_gaussian, lambda rng, shape: rng.standard_normal(shape), np.inf),
    "laplace": Tail(_laplace, lambda rng, shape: rng.laplace(0.0, 1 / ROOT2, shape), np.inf),
}


class Sequences(NamedTuple):
    """[SEP] at t of `last` tokens, from 1; 0 stands at [SEP] and after the last token."""

    x: Float[np.ndarray, "case seq"]
    t: Int[np.ndarray, " case"]
    last: Int[np.ndarray, " case"]
    weight: Float[np.ndarray, " case"]  # likelihood ratio; its mean is 1


def draw(
    rng: np.random.Generator,
    tail: str,
    cases: int,
    *,
    window: tuple[float, float] | None = None,
    shortest: int = 16,
    longest: int = 32,
) -> Sequences:
    """T uniform on shortest..longest, t uniform on 1..T-1, numbers from `tail`.

    `window` is low and high, the sizes of number that have to be seen. Without it the numbers
    come from p and every weight is 1.
    Raises `NoSegment`, and `Refused` for an unknown tail or an empty window.
    """
    if tail not in TAILS:
        raise Refused(f"no tail {tail!r}: choose one of {', '.join(TAILS)}")
    if not 2 <= shortest <= longest:
        raise NoSegment(f"lengths {shortest}..{longest}: give 2 <= shortest <= longest")
    if window is not None and not 0 <= window[0] < window[1] < np.inf:
        raise Refused(f"window = {window}: give 0 <= low < high, sizes of numbers")
    last = rng.integers(shortest, longest + 1, cases)
    t = rng.integers(1, last)
    i = np.arange(1, longest + 1)
    number = (i <= last[:, None]) & (i != t[:, None])
    x = np.where(number, TAILS[tail].draw(rng, (cases, longest)), 0.0)
    if window is None:
        return Sequences(x, t, last, np.ones(cases))
    low, high = window
    after = i > t[:, None]
    rare = np.where(after, 0.5 / (last - t)[:, None], 0.25 / np.maximum(t - 1, 1)[:, None])
    large = rng.uniform(low, high, x.shape) * rng.choice([-1.0, 1.0], x.shape)
    x = np.where(number & (rng.random(x.shape) < rare), large, x)
    inside = (np.abs(x) >= low) & (np.abs(x) <= high)
    log_g = np.where(inside, -np.log(2 * (high - low)), -np.inf)
    with quiet():
        ratio = log_g - TAILS[tail].log_density(x)
        log_weight = -np.logaddexp(np.log1p(-rare), np.log(rare) + ratio)
        return Sequences(x, t, last, np.exp(np.where(number, log_weight, 0.0).sum(axis=1)))
