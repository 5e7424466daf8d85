"""The closed form against the literal model in 60 digits and more, and its refusals."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toy import strategies
from tests.toy.oracle import literal
from toy import errors, theorem
from toy.logs import ROUNDING


def draw(rng):
    T = int(rng.integers(2, 12))
    t = int(rng.integers(1, T))
    X = rng.uniform(0.1, 3)
    s = 1 + 10 ** rng.uniform(-1, 2)
    b, d = rng.normal(), rng.normal() * 10 ** rng.uniform(-1, 3)
    x = [rng.uniform(-X, X, T), rng.choice([-X, 0, X], T), np.full(T, X)][rng.integers(3)]
    return x, t, s, b, d


@pytest.mark.parametrize("seed", range(60))
def test_residual_is_relatively_accurate(seed):
    """Also where f and m agree to the last bit, and for queries of either sign."""
    x, t, s, b, d = draw(np.random.default_rng(seed))
    error, size, condition, *_ = literal(x, t, s, b, d)
    found = theorem.residual(x, t, s_tag=s, b=b, d=d)
    # Rounding is relative to each term; the query's own cancellation multiplies its logits' errors.
    assert abs(mpmath.mpf(float(found)) - error) <= ROUNDING * condition * size + 1e-300


@given(strategies.cases(longest=9))
def test_residual_at_every_corner(case):
    """In 60 to 300 digits: queries just above 0, d = 10^6, s = 400, ties, t = 1, n = 1.

    Beside the rounding of each term there is that of the logarithm of a row's crowd, at most 64
    units of its size X^2 + log T: a change of log r by h changes a logit by q (s - 1) a (1 - a) h.
    """
    T, t, X, at, x = case
    s = at["s_tag"]
    exact = literal(x, t, s, at["b"], at["d"])
    found = theorem.residual(x, t, **at)
    query = abs(at["b"] * exact.stream[-1][0] + at["d"] * exact.stream[-1][1])
    slope = max(row[t - 1] * (1 - row[t - 1]) for row in exact.pattern[t:])
    crowd = 64 * np.finfo(float).eps * (X * X + np.log(T))
    room = ROUNDING * exact.condition * exact.size + 2 * X * query * (s - 1) * slope * crowd
    assert abs(mpmath.mpf(float(found)) - exact.error) <= room + 1e-300


def test_rows_whose_crowds_almost_tie_cost_digits():
    """r_2 and r_3 agree to 11 digits, so that 4 are left of the difference that makes the error."""
    x = np.array([0.0, 3.584110681108749, -3.584110681108749])
    error = literal(x, 1, 2.0, 1.0, 1e6).error
    found = theorem.residual(x, 1, s_tag=2.0, b=1.0, d=1e6)
    assert 1e-9 < abs(mpmath.mpf(float(found)) / error - 1) < 1e-3


def test_residual_keeps_its_digits_down_to_1e_290():
    x = np.array([1.0, -0.5, 0.3, 0.0, 0.7, -1.3, 0.2])
    for s, d in [(40.0, 0.01), (200.0, 1e-3), (600.0, 2e-3), (640.0, 2e-3)]:
        error, *_ = literal(x, 4, s, 0.1, d)
        found = theorem.residual(x, 4, s_tag=s, b=0.1, d=d)
        assert abs(mpmath.mpf(float(found)) / error - 1) < 1e-10
    assert 0 < abs(float(error)) < 1e-250


@pytest.mark.parametrize("seed", range(20))
def test_every_quantity_of_the_closed_form(seed):
    x, t, s, b, d = draw(np.random.default_rng(1000 + seed))
    error, _, condition, attention, stream, weights = literal(x, t, s, b, d)
    caught = [float(row[t - 1]) if i >= t - 1 else 0.0 for i, row in enumerate(attention)]
    np.testing.assert_allclose(theorem.sink(x, t, s), caught, rtol=ROUNDING)
    tags = [float(h[1]) for h in stream]
    np.testing.assert_allclose(theorem.tag(x, t, s), tags, rtol=ROUNDING, atol=1e-50)
    row = theorem.readout(x, t, s_tag=s, b=b, d=d)
    np.testing.assert_allclose(row, [float(w) for w in weights], atol=ROUNDING * condition)
    f = theorem.output(x, t, s_tag=s, b=b, d=d)
    assert abs(f - float(error) - x[t:].mean()) <= ROUNDING * condition * max(np.abs(x))


@given(
    st.sampled_from([1 + 2e-16, 1.5, 30.0, 1e6, 1e155, 1e300]),
    st.sampled_from([1e-6, 0.5, 3.0, 40.0, 1e3]),
    st.sampled_from([-1e6, -1.0, 0.0, 1e-9, 1.0, 1e6]),
    st.integers(0, 2**32 - 1),
)
def test_finite_for_any_scale(s, X, d, seed):
    rng = np.random.default_rng(seed)
    x, t = rng.uniform(-X, X, (3, 7)), int(rng.integers(1, 7))
    for b in (0.0, 1.0):
        error = theorem.residual(x, t, s_tag=s, b=b, d=d)
        row = theorem.readout(x, t, s_tag=s, b=b, d=d)
        assert np.isfinite(error).all()
        assert (np.abs(error) <= 2 * X * (1 + ROUNDING)).all()
        np.testing.assert_allclose(row.sum(axis=-1), 1.0, rtol=1e-14)
        assert np.isfinite(theorem.tag(x, t, s)).all()


def test_numbers_do_not_overflow_where_their_products_do():
    """exp(x_i x_k) is beyond float64 at X = 40, and the catch still works for s > X^2."""
    x = np.array([40.0, -40.0, 0.0, 40.0, -3.0, 40.0])
    assert abs(theorem.residual(x, 3, s_tag=1700.0)) < 1e-12
    # Below X^2 the last token is not caught: no query, and the mean of all of them, [SEP] as 0.
    missed = theorem.residual(x, 3, s_tag=1000.0)
    assert missed == pytest.approx(77 / 6 - 77 / 3, rel=1e-14)


def test_the_entry_at_sep_is_ignored_and_batches_are_rows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 9))
    other = x.copy()
    other[..., 3] = np.nan
    every = theorem.residual(x, 4, s_tag=9.0, b=0.2)
    assert every.shape == (2, 3)
    np.testing.assert_array_equal(every, theorem.residual(other, 4, s_tag=9.0, b=0.2))
    np.testing.assert_array_equal(every[1, 2], theorem.residual(x[1, 2], 4, s_tag=9.0, b=0.2))
    assert not np.isnan(x).any()


def test_equal_numbers_leave_only_the_leak():
    """After [SEP] all x_j = c: however uneven the weights, f - m is what leaks."""
    x = np.full(9, 0.1)
    x[:3] = -0.7
    row = theorem.readout(x, 4, s_tag=6.0)
    leak = row[:3].sum() * (-0.7 - 0.1) - row[3] * 0.1
    assert theorem.residual(x, 4, s_tag=6.0) == pytest.approx(leak, rel=1e-12)


X9 = np.linspace(-1, 1, 9)


@pytest.mark.parametrize("call", [theorem.output, theorem.residual, theorem.readout])
@pytest.mark.parametrize(
    ("x", "t", "s", "refusal", "says"),
    [
        (X9, 9, 5.0, errors.NoSegment, "t in 1..8"),
        (X9, 0, 5.0, errors.NoSegment, "t = 0"),
        (X9, -1, 5.0, errors.NoSegment, "t = -1"),
        (X9[:1], 1, 5.0, errors.NoSegment, "1 token"),
        (X9[:0], 1, 5.0, errors.NoSegment, "0 token"),
        (X9, 4, 1.0, errors.ScaleTooSmall, "smallest_s_tag"),
        (X9, 4, -5.0, errors.ScaleTooSmall, "-5"),
        (X9, 4, float("nan"), errors.NotFinite, "s_tag"),
        (np.array([0.0, np.inf, 1.0]), 1, 5.0, errors.NotFinite, "position 2"),
    ],
)
def test_refusals_say_what_and_what_to_do(call, x, t, s, refusal, says):
    with pytest.raises(refusal, match=says) as caught:
        call(x, t, s_tag=s)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["b", "d"])
def test_weights_must_be_finite(name):
    with pytest.raises(errors.NotFinite, match=f"{name} = inf"):
        theorem.output(X9, 4, s_tag=5.0, **{name: float("inf")})
