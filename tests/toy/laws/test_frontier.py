"""The loss frontier: the sampler against known integrals, the prediction against the sampler."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toy.errors import NoSegment, Refused, ScaleTooSmall
from toy.laws import linear, one_large
from toy.laws.frontier import BLOCKS, blocks, effective, frontier, resampled, slopes
from toy.laws.residuals import Crowds, crowds, residuals, squared_errors
from toy.laws.search import least
from toy.laws.tails import TAILS, draw
from toy.theorem import residual
from toy.transformer import forward, theorem_weights

WINDOW = (2.0, 8.0)
HEAVY = [name for name, tail in TAILS.items() if np.isinf(tail.edge)]


@dataclass(frozen=True)
class Mean:
    """A mean and its standard error."""

    value: float
    error: float


def mean(values):
    return Mean(values.mean(), values.std(ddof=1) / np.sqrt(len(values)))


@given(
    seed=st.integers(0, 2**31),
    tail=st.sampled_from(sorted(TAILS)),
    s=st.floats(1.5, 60),
    b=st.floats(-2, 2),
    d=st.floats(-3, 3),
)
def test_residuals_are_the_theorems(seed, tail, s, b, d):
    """Also for queries of either sign, t = 1 and one number after [SEP]; relative to the parts."""
    sequences = draw(np.random.default_rng(seed), tail, 7, window=WINDOW, shortest=2, longest=9)
    ours = residuals(crowds(sequences), s_tag=s, b=b, d=d)
    for x, t, last, found in zip(sequences.x, sequences.t, sequences.last, ours, strict=True):
        exact = residual(x[:last], int(t), s_tag=s, b=b, d=d)
        # exp of a logit q (s - 1) carries that logit's rounding; x is the scale of f and m.
        logit = (abs(b) * np.abs(x).max() + abs(d) * (s - 1)) * (s - 1)
        room = 1e-11 + 64 * logit * np.finfo(float).eps
        assert abs(found - exact) <= room * (abs(exact) + 1e-280) + 1e-13 * np.abs(x).max()


@pytest.mark.parametrize("w", [0.3, 1.0, 1.7])
def test_residuals_are_the_transformers_for_any_w(w):
    rng = np.random.default_rng(0)
    sequences = draw(rng, "uniform", 12, shortest=11, longest=11)
    found = residuals(crowds(sequences), s_tag=6.0, b=0.2, d=0.3, w=w)
    weights = theorem_weights(6.0, 0.2, 0.3)
    weights = weights._replace(W_V1=w * np.asarray(weights.W_V1))
    for x, t, ours in zip(sequences.x, sequences.t, found, strict=True):
        f, _ = forward(weights, x[None], int(t))
        assert f[0] - x[t:].mean() == pytest.approx(ours, abs=1e-13)


@pytest.mark.parametrize("tail", sorted(TAILS))
def test_weighted_sequences_have_the_moments_of_the_tail(tail):
    """Known integrals: 1, the variance, and P(|x| > 3) of the number after [SEP]."""
    sequences = draw(np.random.default_rng(1), tail, 40_000, window=WINDOW)
    x = np.take_along_axis(sequences.x, sequences.t[:, None], axis=1)[:, 0]
    beyond = {"uniform": 0.0, "gaussian": 0.002699796063, "laplace": np.exp(-3 * np.sqrt(2))}
    for values, exact in (
        (np.ones_like(x), 1.0),
        (x**2, 1.0),
        (np.abs(x) > 3, beyond[tail]),
    ):
        found = mean(sequences.weight * values)
        assert abs(found.value - exact) <= 5 * found.error
    assert sequences.weight.max() <= 2 * 4 / 3
    assert sequences.weight.min() >= 0


def test_plain_sequences_weigh_one_and_cover_every_length():
    sequences = draw(np.random.default_rng(2), "laplace", 3000, shortest=3, longest=5)
    assert (sequences.weight == 1).all()
    assert set(sequences.last) == {3, 4, 5}
    assert ((sequences.t >= 1) & (sequences.t < sequences.last)).all()
    i = np.arange(1, 6)
    hidden = (i == sequences.t[:, None]) | (i > sequences.last[:, None])
    assert (sequences.x[hidden] == 0).all()
    assert (sequences.x[~hidden] != 0).all()


@pytest.mark.parametrize("tail", HEAVY)
def test_importance_sampling_equals_plain_monte_carlo_where_both_work(tail):
    rng = np.random.default_rng(3)
    found = [
        mean(squared_errors(crowds(draw(rng, tail, 20_000, window=window)), s_tag=8.0, d=0.1))
        for window in (WINDOW, None)
    ]
    assert abs(found[0].value - found[1].value) <= 5 * np.hypot(found[0].error, found[1].error)


@pytest.fixture(scope="module")
def curves():
    scales = np.array([12.0, 20.0, 32.0])
    return {tail: frontier(tail, scales, sequences=12_000, seed=5) for tail in TAILS}


def test_plain_monte_carlo_is_over_optimistic_and_does_not_know(curves):
    """At s = 32 it reports a fraction of the loss; importance sampling knows its own error."""
    found = curves["gaussian"]
    assert found.plain_loss[2] < found.low[2] / 4
    assert found.effective[2] > 100
    believed = found.plain_loss[2] * (1 + 5 / np.sqrt(found.plain_effective[2]))
    assert believed < found.low[2]  # five of its own standard errors do not reach the truth


def test_the_frontier_falls_as_predicted(curves):
    """Nothing is fitted, and a 5% error of the predicted slope would be seen."""
    for tail, found in curves.items():
        measured = np.log(found.loss[2] / found.loss[0])
        predicted = np.log(found.predicted[2] / found.predicted[0])
        # Sampling: relative errors 1/sqrt(effective n). Theory: the next order is smaller by
        # the chance of a second large number, or by Q r for bounded ones, both below 0.05 at 12.
        room = 4 * np.sqrt((1 / found.effective[[0, 2]]).sum()) if tail in HEAVY else 0.05
        assert abs(measured - predicted) <= room, tail
        if tail != "laplace":
            assert abs(measured - 1.05 * predicted) > room, tail


def test_the_tails_are_told_apart(curves):
    """-2 + 2 / (Q + 1), about -1/2, and ever flatter."""
    uniform, gaussian, laplace = (curves[tail].slope[1] for tail in TAILS)
    gain = curves["uniform"].d[1:].mean() * 25**2
    assert uniform == pytest.approx(-2 + 2 / (gain + 1), rel=0.005)
    assert -0.55 < gaussian < -0.4
    assert -0.15 < laplace < -0.05


def test_w_and_b_change_the_frontier_by_little_or_for_the_worse(curves):
    for found in curves.values():
        for name, ratio in found.others.items():
            assert ratio > 0.98, (found.tail, name)
        assert found.others["w = 0.7"] < 1.01
        assert found.others["b = 0.02"] > 1.001


def test_bounded_numbers_at_d_1_have_the_slope_minus_2_plus_4_over_s_minus_1():
    s = np.array([19.99, 20.01])
    seen = crowds(draw(np.random.default_rng(6), "uniform", 2000))
    values = np.array([squared_errors(seen, s_tag=k).mean() for k in s])
    # Second order: Q r <= (s-1)^2 31 e^{1+3-s}.
    room = 4 * 19**2 * 31 * np.exp(4 - 20)
    assert slopes(s, values)[0] == pytest.approx(-2 + 4 / 19, rel=room)
    assert room < 0.01


@pytest.mark.parametrize("correlation", [-0.9, -0.07, 0.0, 0.5])
@pytest.mark.parametrize("s", [6.0, 14.0, 40.0])
def test_the_linear_laws_slope_is_exact_whatever_the_cross_term(correlation, s):
    """d log MSE* / ds = -2 + 2 / (Q + 1), up to what a difference over 2h has of the third one."""
    of, h = linear.Moments(86.0, correlation * np.sqrt(86.0 * 30.0), 30.0), 0.01
    above, below = (np.log(linear.frontier(of, s + v).loss) for v in (h, -h))
    slope = -2 + 2 / (linear.frontier(of, s).gain + 1)
    assert (above - below) / (2 * h) == pytest.approx(slope, abs=h * h)


@given(seed=st.integers(0, 2**31), s=st.floats(16, 60), gain=st.floats(2, 50))
def test_the_linear_law_is_the_limit_of_the_loss(seed, s, gain):
    seen = crowds(draw(np.random.default_rng(seed), "uniform", 40))
    exact = squared_errors(seen, s_tag=s, d=gain / (s - 1) ** 2).mean()
    law = linear.loss(linear.moments(seen), s_tag=s, gain=gain)
    of = linear.moments(seen)
    parts = (gain * np.exp(1 - s)) ** 2 * of.uneven + np.exp(-2 * gain) * of.leak
    # Second order in the unevenness of the logits, gain * r, and in the leak, 31 e^-gain.
    second = (1 + gain) * 31 * np.exp(4 - s) + 31 * np.exp(-gain)
    rounding = 64 * gain * np.finfo(float).eps  # of a logit
    assert abs(exact - law) <= (8 * second + rounding) * parts


def _all(T, t):
    """E[(sum of all numbers / T - m)^2]."""
    return (T - t) * (1 / T - 1 / (T - t)) ** 2 + (t - 1) / T**2


def test_one_large_number_with_no_query_is_uniform_attention():
    """Q = 0 has the exact loss n (1/T - 1/n)^2 + (t - 1) / T^2 at any s and for any tail."""
    for tail in HEAVY:
        exact = np.mean([np.mean([_all(T, t) for t in range(1, T)]) for T in range(5, 8)])
        found = one_large.loss(tail, s_tag=30.0, gain=0.0, shortest=5, longest=7)
        # The kink of Laplace's density at 0 costs the trapezoid rule h^2 / 12.
        assert found == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("tail", HEAVY)
def test_the_quadrature_has_converged(tail, monkeypatch):
    coarse = one_large.loss(tail, s_tag=20.0, gain=7.0)
    monkeypatch.setattr(one_large, "POINTS", 2 * one_large.POINTS - 1)
    assert one_large.loss(tail, s_tag=20.0, gain=7.0) == pytest.approx(coarse, rel=1e-4)


def test_search_slope_and_bootstrap_recover_what_was_put_in():
    found = least(lambda v: (v - 1.7) ** 2 + 3, -5.0, 9.0, steps=40)
    assert found.at == pytest.approx(1.7, abs=1e-6)
    assert found.value == pytest.approx(3)
    s = np.array([2.0, 5.0, 6.0])
    np.testing.assert_allclose(slopes(s, 7 * np.exp(-0.3 * s)), -0.3)
    rng = np.random.default_rng(0)
    values = rng.standard_normal((BLOCKS * 10 + 3, 2))
    groups = blocks(values)
    np.testing.assert_allclose(groups[0], values[:10].mean(axis=0))
    spread = resampled(rng, groups, 4000).std(axis=0)
    np.testing.assert_allclose(spread, groups.std(axis=0) / np.sqrt(BLOCKS), rtol=5 / np.sqrt(8000))
    np.testing.assert_allclose(effective(np.array([[2.0, 0.0], [2.0, 5.0]])), [2, 1])


def test_what_cannot_be_measured_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(Refused, match="no tail 'cauchy'"):
        draw(rng, "cauchy", 3)
    with pytest.raises(NoSegment):
        draw(rng, "laplace", 3, shortest=1)
    for window in ((2.0, 2.0), (-1.0, 2.0), (1.0, np.inf), (np.nan, 2.0)):
        with pytest.raises(Refused, match="window"):
            draw(rng, "laplace", 3, window=window)
    with pytest.raises(Refused, match="bounded"):
        one_large.loss("uniform", s_tag=20.0, gain=3.0)
    with pytest.raises(ScaleTooSmall):
        residuals(crowds(draw(rng, "uniform", 3)), s_tag=1.0)
    with pytest.raises(Refused, match="99 sequences"):
        frontier("uniform", np.array([8.0, 9.0]), sequences=99)
    assert isinstance(crowds(draw(rng, "uniform", 3)), Crowds)
