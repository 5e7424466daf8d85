"""The constants of N0 to N3, rebuilt from what they count, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toy.errors import NoMagnitude, NoSegment, Refused
from toy.statements import last_segment, logits, one_layer, sandwich, sink_necessary


@given(st.integers(2, 7), st.integers(2, 7), st.integers(0, 2**32 - 1))
def test_n0_is_attained_by_the_middle_of_the_possible_means(t, n, seed):
    rng = np.random.default_rng(seed)
    T = t + n
    x = rng.choice([-1.0, 1.0, rng.uniform(-1, 1)], T)
    others = np.sort(np.delete(x, [t - 1, T - 1]))
    low, high = (others[: n - 1].sum() + x[-1]) / n, (others[-(n - 1) :].sum() + x[-1]) / n
    assert abs((low + high) / 2 - x[t:].mean()) <= one_layer.least_error(T, t, 1.0) + 1e-15


def test_n0_swaps_without_touching_the_multiset_or_the_last_token():
    x = np.random.default_rng(0).uniform(-1, 1, 12)
    for t in range(1, 12):
        one, other = one_layer.swapped(x, t, 1.0)
        numbers = [np.sort(np.delete(v, t - 1)) for v in (one, other)]
        np.testing.assert_array_equal(numbers[0], numbers[1])
        assert one[-1] == other[-1] == x[-1]
        moved = one[t:].mean() - other[t:].mean()
        assert abs(moved) == pytest.approx(2 * one_layer.least_error(12, t, 1.0), abs=1e-15)


@given(st.integers(1, 8), st.integers(1, 8), st.floats(0, 30))
def test_n1_inverts_the_error_of_even_logits(t, n, contrast):
    T, X = t + n, 1.3
    p = np.exp(np.where(np.arange(T) < t, 0.0, contrast))
    error = p @ logits.opposed(T, t, X) / p.sum() + X
    if error > 1e-9:
        assert logits.least_contrast(T, t, X, error) == pytest.approx(contrast, abs=1e-6)


def test_n1_size_grows_like_the_root_of_a_logarithm():
    sizes = [logits.least_size(16, 6, 2.0, 10.0**-k, 3.0) for k in (3, 6, 12)]
    expected = [np.sqrt(logits.least_contrast(16, 6, 2.0, 10.0**-k) / 6) for k in (3, 6, 12)]
    np.testing.assert_allclose(sizes, expected)
    assert logits.least_size(16, 6, 2.0, 100.0, 3.0) == 0.0
    assert logits.least_contrast(16, 6, 2.0, 100.0) == -np.inf


@given(st.integers(2, 9), st.integers(3, 9), st.floats(0.1, 2), st.floats(1e-12, 0.3))
def test_n2_constants_count_what_the_proof_counts(t, n, X, share):
    """k is the mean of j - 1 over the zeros after [SEP], c how far the crowded one is above."""
    T, eta = t + n, share / n
    zeros = [j - 1 for j in range(t + 1, T + 1) if j != T - 1]
    k = np.mean(zeros)
    c = T - 3 + np.exp(X * X) - k
    p = 1 / n - eta
    U = np.log((1 - p) / (p * (n - 1)))
    Lam = np.log(p / (1 - p) * (n - 2) / (n - 1) * (t - 1) / eta)
    found = sink_necessary.forced(T, t, X, np.array([eta * X]))
    assert found.drift[0] == pytest.approx(U, rel=1e-3 if eta < 1e-9 else 1e-6)
    assert found.contrast[0] == pytest.approx(Lam, rel=1e-9)
    exact = c * found.contrast[0] / found.drift[0] - k
    assert found.e_scale[0] == pytest.approx(exact, rel=1e-9, abs=1e-9 * T)
    assert found.sink_defect[0] == pytest.approx((T - 1) / (exact + k), rel=1e-9)


def test_n2_inputs():
    x = sink_necessary.four_inputs(9, 4, 1.5)
    np.testing.assert_array_equal(x[0], [1.5, 1.5, 1.5, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(x[2], [0, 0, 0, 0, 0, 0, 0, 1.5, 0])
    np.testing.assert_array_equal(x[[1, 3]], -x[[0, 2]])


def test_n3_counts_the_tokens_of_the_middle_that_outrank():
    # T = 12, X = 1: 2 (i - 1) <= 8 + e = 10.7, so i <= 6 of the middle 4, 5, 6, 7
    assert last_segment.tagged_more(12, 3, 8, 1.0) == 3
    assert last_segment.least_error(12, 3, 8, 1.0) == pytest.approx(min(2 / 12, 3 / 28))


def test_needed_is_below_enough_and_both_grow_like_log_1_over_eps():
    errors = 10.0 ** -np.arange(2, 13)
    needed = [sink_necessary.least_scale(16, 6, 2.0, e) for e in errors]
    enough = [sandwich.enough(16, 6, 2.0, e).s_tag for e in errors]
    gap = np.subtract(enough, needed)
    limit = np.log(1.21 * 15 * 100 / 9) + 4 - np.log(np.exp(4.0) - 2 + 5 - 1 / 9)
    assert (gap > 0).all()
    assert (np.abs(np.diff(needed) - np.log(10)) < 0.5).all()
    assert gap[-1] < limit + 0.3


@pytest.mark.parametrize(
    ("call", "refusal", "says"),
    [
        (lambda: one_layer.least_error(5, 5, 1.0), NoSegment, "t = 5"),
        (lambda: one_layer.least_error(5, 2, 0.0), NoMagnitude, "X = 0"),
        (lambda: logits.least_contrast(5, 2, 1.0, 0.0), Refused, "positive error"),
        (lambda: logits.least_size(5, 2, 1.0, 0.1, 0.0), Refused, "norm > 0"),
        (lambda: sink_necessary.least_scale(5, 1, 1.0, 0.01), Refused, "t >= 2"),
        (lambda: sink_necessary.least_scale(5, 3, 1.0, 0.01), Refused, "n = T - t >= 3"),
        (lambda: sink_necessary.least_scale(9, 3, 1.0, 0.06), Refused, "nothing is forced"),
        (lambda: sink_necessary.least_scale(9, 3, 1.0, float("nan")), Refused, "nothing is forced"),
        (lambda: last_segment.least_error(9, 3, 8, 1.0), Refused, "n >= 2"),
        (lambda: last_segment.least_error(9, 3, 6, 0.8), Refused, "X = 0.8"),
        (lambda: last_segment.least_error(9, 6, 3, 1.0), NoSegment, "first < second"),
        (lambda: sandwich.enough(9, 3, 1.0, 0.2), Refused, "X/10"),
    ],
)
def test_refusals(call, refusal, says):
    with pytest.raises(refusal, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)
