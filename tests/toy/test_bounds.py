"""Theorem B and its companions hold for every input that was tried, adversaries included."""

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.toy import strategies
from toy import bounds, errors, theorem
from toy.logs import ROUNDING
from toy.position import position_bound

TINY = 1e-300
"""Where exponentials leave float64's normal range both sides are as good as 0."""


def rounding(X, at):
    return bounds.relative_rounding(X, s_tag=at["s_tag"], b=at["b"])


@pytest.mark.parametrize("bound", [bounds.error_bound, position_bound])
@given(case=strategies.cases())
def test_no_error_exceeds_the_bound(bound, case):
    T, t, X, at, x = case
    found = abs(theorem.residual(x, t, **at))
    assert found <= bound(T, t, X, **at) * (1 + rounding(X, at)) + TINY


@given(strategies.cases())
def test_companions(case):
    T, t, X, at, x = case
    s = at["s_tag"]
    caught, within = theorem.sink(x, t, s), bounds.sink_bounds(T, t, X, s_tag=s)
    assert (within.lower * (1 - ROUNDING) <= caught).all()
    assert (caught <= within.upper * (1 + ROUNDING)).all()
    tags, within = theorem.tag(x, t, s), bounds.tag_bounds(T, t, X, s_tag=s)
    room = ROUNDING * np.abs(tags)
    assert (within.lower - room <= tags).all()
    assert (tags <= within.upper + room).all()
    row = theorem.readout(x, t, **at)
    uniform = np.where(np.arange(T) < t, 0.0, 1 / (T - t))
    distance = np.abs(row - uniform).sum() / 2
    assert distance <= bounds.readout_bound(T, t, X, **at) + rounding(X, at)


@given(strategies.settings(least_n=2))
def test_corollary(setting):
    """B <= X/2 (T-1) (s-1) (d (s-1) + |b| X) e^{1 + X^2 - s} + X (2t-1)/n e^{-L}."""
    T, t, X, at = setting
    s, b, d = at["s_tag"], at["b"], at["d"]
    rho = (T - 1) * np.exp(1 + X * X - s)
    L = (d * (s - 1) / (1 + rho) - abs(b) * X) * (s - 1) / (1 + rho)
    uneven = X / 2 * (s - 1) * (d * (s - 1) + abs(b) * X) * rho
    leak = X * (2 * t - 1) / (T - t) * np.exp(-L)
    bound = bounds.error_bound(T, t, X, **at)
    assert bound <= (uneven + leak) * (1 + rounding(X, at)) + TINY


@given(strategies.settings())
def test_against_the_formula_in_60_digits(setting):
    T, t, X, at = setting
    with mpmath.workdps(60):
        s, b, d, x = (mpmath.mpf(v) for v in (at["s_tag"], at["b"], at["d"], X))
        rho = (T - 1) * mpmath.exp(1 + x**2 - s)
        rho_0 = (1 + (t - 1) * mpmath.exp(-(x**2))) * mpmath.exp(1 - s)
        q_lo = d * (s - 1) / (1 + rho) - abs(b) * x
        q_hi = d * (s - 1) / (1 + rho_0) + abs(b) * x
        uneven = q_hi * (s - 1) * (rho / (1 + rho) - rho_0 / (1 + rho_0)) if T - t > 1 else 0
        L = q_lo * (s - 1) / (1 + rho)
        exact = 2 * x * mpmath.tanh(uneven / 4)
        exact += (2 * t - 1) * x / (t - 1 + (T - t) * mpmath.exp(L))
        room = rounding(X, at)
        assert abs(bounds.error_bound(T, t, X, **at) / exact - 1 if exact > TINY else 0) <= room


def test_one_number_cannot_be_averaged_unevenly():
    """n = 1: only the leak is left, which falls like e^{-L}."""
    assert 0 < bounds.error_bound(8, 7, 2.0, s_tag=20.0) < 1e-140


@pytest.mark.parametrize("X", [0.5, 1.0, 2.0])
def test_bounds_are_attained(X):
    """The leak term and the sink's lower end are equalities in the limit: not a loose formula."""
    T, t, s = 9, 4, 12.0
    x = np.full(T, X)
    lower = bounds.sink_bounds(T, t, X, s_tag=s).lower
    np.testing.assert_allclose(theorem.sink(x, t, s)[t:], lower[t:], rtol=1e-12)
    x[t:] = -X
    leak = bounds.error_bound(T, t, X, s_tag=60.0, d=1e-3)
    assert abs(theorem.residual(x, t, s_tag=60.0, d=1e-3)) / leak > 0.95


@given(st.data())
def test_smallest_s_tag_is_the_edge(data):
    T = data.draw(st.integers(2, 30))
    t = data.draw(st.integers(1, T - 1))
    X = data.draw(st.floats(1e-3, 6))
    b = data.draw(st.floats(0.01, 100)) * data.draw(st.sampled_from([-1, 1]))
    d = data.draw(st.floats(1e-3, 1e3))
    s = bounds.smallest_s_tag(T, t, X, b=b, d=d)
    assert bounds.error_bound(T, t, X, s_tag=s, b=b, d=d) >= 0
    below = 1 + (s - 1) * (1 - 1e-9)
    assume(1 < below < s)
    with pytest.raises(errors.NonPositiveQuery, match="s_tag >= "):
        bounds.error_bound(T, t, X, s_tag=below, b=b, d=d)
    with mpmath.workdps(40):
        root = mpmath.mpf(s)
        rho = (T - 1) * mpmath.exp(1 + mpmath.mpf(X) ** 2 - root)
        sides = d * (root - 1), abs(b) * X * (1 + rho)
        # One step of s moves (s - 1) and rho by at most this much.
        step = 8 * np.finfo(float).eps * (s / (s - 1) + s + X * X)
        assert abs(sides[0] / sides[1] - 1) <= step


def test_the_refusal_names_a_scale_that_works():
    for s in (1.5, 20.0):
        with pytest.raises(errors.NonPositiveQuery) as caught:
            bounds.error_bound(9, 4, 2.0, s_tag=s, b=30.0)
        s = float(str(caught.value).rsplit(" ", 1)[1])
        assert bounds.error_bound(9, 4, 2.0, s_tag=s, b=30.0) > 0


def test_without_the_query_the_bound_would_be_false():
    """b x_T < 0 just below the edge: all mass before [SEP]; just above it, the mean."""
    x = np.array([-1.0, -1.0, 0.0, 1.0, 1.0, 1.0])
    edge = bounds.smallest_s_tag(6, 3, 1.0, b=-30.0)
    assert abs(theorem.residual(x, 3, s_tag=edge - 1, b=-30.0)) > 0.5
    assert abs(theorem.residual(x, 3, s_tag=edge + 1, b=-30.0)) < 1e-6


@pytest.mark.parametrize(
    ("args", "at", "refusal", "says"),
    [
        ((9, 9, 1.0), {}, errors.NoSegment, "t in 1..8"),
        ((1, 1, 1.0), {}, errors.NoSegment, "1 token"),
        ((9, 4, 0.0), {}, errors.NoMagnitude, "X > 0"),
        ((9, 4, -1.0), {}, errors.NoMagnitude, "X = -1"),
        ((9, 4, float("nan")), {}, errors.NotFinite, "X = nan"),
        ((9, 4, 1e200), {}, errors.NotFinite, "squared"),
        ((9, 4, 1.0), {"d": 0.0}, errors.NonPositiveQuery, "d > 0"),
        ((9, 4, 1.0), {"d": -3.0}, errors.NonPositiveQuery, "d = -3"),
        ((9, 4, 1.0), {"b": float("inf")}, errors.NotFinite, "b = inf"),
    ],
)
def test_refusals(args, at, refusal, says):
    with pytest.raises(refusal, match=says):
        bounds.smallest_s_tag(*args, **at)
    for bound in (bounds.error_bound, bounds.readout_bound, position_bound):
        with pytest.raises(refusal, match=says) as caught:
            bound(*args, s_tag=9.0, **at)
        assert "\n" not in str(caught.value)


def test_scale_is_refused_at_one():
    for bound in (bounds.error_bound, bounds.sink_bounds, bounds.tag_bounds):
        with pytest.raises(errors.ScaleTooSmall):
            bound(9, 4, 1.0, s_tag=1.0)
