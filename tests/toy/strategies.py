"""Sequences, weights and inputs of the theorem, with every corner that a proof could overlook."""

from typing import NamedTuple

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from toy import bounds
from toy.adversary import blocks


class Case(NamedTuple):
    T: int
    t: int
    X: float
    at: dict[str, float]  # s_tag, b, d
    x: np.ndarray


SEEDS = st.integers(0, 2**32 - 1)
MAGNITUDES = st.sampled_from([1e-3, 0.3, 1.0, 2.0, 5.0]) | st.floats(0.01, 4)


@st.composite
def shapes(draw, longest=40, least_n=1):
    """(T, t); t = 1 and n = T - t = 1 (or least_n) come often."""
    T = draw(st.integers(1 + least_n, longest))
    ends = st.sampled_from([1, T - least_n])
    return T, draw(ends | st.integers(1, T - least_n))


@st.composite
def settings(draw, longest=40, least_n=1):
    """T, t, X and weights with a positive guaranteed query, near the edge q_lo = 0 or far away.

    The edge is approached from s, at a given X, and from X, at a given s.
    """
    T, t = draw(shapes(longest, least_n))
    d = draw(st.sampled_from([1e-3, 0.1, 1.0, 30.0, 1e6]) | st.floats(0.05, 5))
    b = draw(st.sampled_from([0.0, 0.0, 0.01, -0.5, 2.0, -40.0]) | st.floats(-3, 3))
    assume(b == 0 or abs(b) > 1e-6)
    if b and draw(st.booleans()):
        s = draw(st.floats(2, 40))
        X = _greatest_X(T, t, s, b, d)
        assume(X > 1e-3)
        return T, t, X * (1 - draw(st.sampled_from([1e-9, 1e-3]))), {"s_tag": s, "b": b, "d": d}
    X = draw(MAGNITUDES)
    least = bounds.smallest_s_tag(T, t, X, b=b, d=d)
    above = [1e-9, 1e-4, 0.1, 1.0, 5.0, 10.0, 20.0, 40.0, 400.0]
    s = least + draw(st.sampled_from(above) | st.floats(0, 30))
    assume(s > 1 + 1e-12)
    return T, t, X, {"s_tag": s, "b": b, "d": d}


def _greatest_X(T, t, s, b, d):
    """Where the query that is guaranteed at s becomes 0, rounded down."""
    low, high = 0.0, 8.0
    for _ in range(30):
        middle = (low + high) / 2
        if bounds.smallest_s_tag(T, t, middle, b=b, d=d) < s:
            low = middle
        else:
            high = middle
    return low


@st.composite
def inputs(draw, T, t, X):
    """Corners, ties, {-X, 0, X}, blocks, interior points; x_T of either sign, and 0."""
    rng = np.random.default_rng(draw(SEEDS))
    several = blocks(T, t, X)
    kind = draw(
        st.sampled_from(["interior", "corner", "ternary", "ties", "leak", "block", "small"])
    )
    x = {
        "interior": rng.uniform(-X, X, T),
        "corner": rng.choice([-X, X], T),
        "ternary": rng.choice([-X, 0.0, X], T),
        "ties": np.full(T, rng.uniform(-X, X)),
        "leak": np.where(np.arange(T) < t, X, -X),
        "block": several[rng.integers(len(several))],
        "small": rng.uniform(-X, X, T) * 1e-4,
    }[kind]
    x = x * draw(st.sampled_from([-1.0, 1.0]))
    last = draw(st.sampled_from([None, -X, X, 0.0]))
    return x if last is None else np.append(x[:-1], last)


@st.composite
def cases(draw, longest=40, least_n=1):
    """A setting and one input of it."""
    T, t, X, at = draw(settings(longest, least_n))
    return Case(T, t, X, at, draw(inputs(T, t, X)))
