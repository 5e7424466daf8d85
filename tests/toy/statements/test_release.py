"""The lemma: no logits within its hypotheses beat it, and some attain it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toy import bounds
from toy.errors import NonPositiveQuery, NoSegment, ScaleTooSmall
from toy.statements import gauge, release
from toy.statements.gauge import Gauge


@given(
    st.integers(1, 6), st.integers(0, 5), st.integers(0, 3),
    st.floats(0, 6), st.floats(-3, 9), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_no_softmax_beats_it(n, numbers, zeros, uneven, contrast, seed):
    rng = np.random.default_rng(seed)
    X = 1.7
    x = np.concatenate([rng.choice([-X, 0.3, X], n + numbers), np.zeros(zeros)])
    within = contrast + uneven * rng.choice([0.0, 0.4, 1.0], n)
    others = -rng.exponential(size=numbers + zeros) * rng.integers(0, 2, numbers + zeros)
    p = np.exp(np.concatenate([within, others]))
    f, m = p @ x / p.sum(), x[:n].mean()
    bound = release.error_bound(X, n, numbers, zeros, uneven, contrast)
    assert abs(f - m) <= bound * (1 + 1e-12) + 1e-15


@pytest.mark.parametrize(("n", "numbers", "zeros"), [(3, 4, 1), (1, 0, 2), (5, 9, 3), (2, 1, 0)])
def test_the_leak_is_the_largest_over_what_the_others_may_weigh(n, numbers, zeros):
    for contrast in np.linspace(-4, 4, 33):
        after = n * np.exp(contrast)
        weights, u = np.meshgrid(np.linspace(0, numbers, 41), np.linspace(0, zeros, 41))
        tried = (2 * weights + u) / (weights + u + after)
        assert release.leak(n, numbers, zeros, contrast) == pytest.approx(tried.max(), rel=1e-12)


def test_unevenness_is_attained_by_a_share_of_1_over_1_plus_e_half_delta():
    """Two thirds of the n lie below: e^{Delta/2} = 2 makes the share 1/3."""
    uneven, x = 2 * np.log(2), np.array([1.0, -1.0, -1.0])
    p = np.exp(np.array([uneven, 0.0, 0.0]))
    f = p @ x / p.sum()
    assert f - x.mean() == pytest.approx(release.error_bound(1.0, 3, 0, 0, uneven, 50.0), rel=1e-12)


def test_nothing_is_uneven_about_one_number():
    assert release.error_bound(2.0, 1, 0, 1, 5.0, 700.0) < 1e-300
    assert release.error_bound(2.0, 2, 0, 1, 5.0, 700.0) > 1


@given(
    st.integers(1, 12), st.integers(1, 12), st.floats(0.1, 2), st.floats(0, 20), st.floats(0.1, 5)
)
def test_at_w_1_it_is_theorem_b_or_sharper(t, n, X, above, d):
    T, s = t + n, 1.01 + X * X + above
    proved = bounds.error_bound(T, t, X, s_tag=s, d=d)
    found = gauge.error_bound(Gauge(T, t, X, s, 1.0, 0.0, d))
    assert found <= proved * (1 + 1e-9)
    if proved < 0.1 * X:  # e^L is large: one in (t - 1 + n e^L) no longer matters
        assert found > 0.8 * proved


def test_refusals_of_any_w():
    at = Gauge(9, 4, 1.0, 8.0, 1.0)
    with pytest.raises(NonPositiveQuery, match="sign of the tag"):
        gauge.error_bound(at._replace(d=-1.0))
    with pytest.raises(NonPositiveQuery, match="w = -1"):
        gauge.error_bound(at._replace(w=-1.0))
    with pytest.raises(NoSegment):
        gauge.error_bound(at._replace(t=9))
    with pytest.raises(ScaleTooSmall):
        gauge.error_bound(at._replace(s_tag=1.0))
