"""s_tag grows like log(step): the arithmetic on exact curves, the law on a short training."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toy.diagnose import diagnose
from toy.errors import Refused
from toy.laws import linear
from toy.laws.growth import NEAR, ORDER, flow_time, growth, log_slope, steepness
from toy.laws.residuals import crowds
from toy.laws.tails import draw
from toy.train import Recipe, train


@given(k=st.floats(0.05, 3), C=st.floats(1e-3, 10))
def test_gradient_flow_on_an_exponential_frontier_grows_by_1_over_k(k, C):
    """e^{k s} = k^2 C tau exactly."""
    s = np.array([3.0, 5.0, 5.5, 9.0])
    tau = flow_time(s, C * np.exp(-k * s))
    np.testing.assert_allclose(tau, np.exp(k * s) / (k**2 * C), rtol=1e-10)


def test_log_slope_recovers_a_logarithm():
    step = np.array([100, 230, 500, 1000])
    s_tag = np.array([[3.0], [4.0]]) + np.array([[1.7], [-0.4]]) * np.log(step)
    np.testing.assert_allclose(log_slope(step, s_tag), [1.7, -0.4])


def test_steepness_is_that_of_the_tail():
    of = linear.moments(crowds(draw(np.random.default_rng(0), "uniform", 4000)))
    gain = linear.frontier(of, 30.0).gain
    # A difference over 1 of a slope whose second derivative is below 4 / Q^3.
    assert steepness("uniform", 30.0) == pytest.approx(2 * gain / (gain + 1), abs=4 / gain**3)
    gaussian = [steepness("gaussian", s) for s in (15.0, 200.0)]
    assert gaussian[0] < gaussian[1] < 0.5
    assert gaussian[1] > 0.49
    laplace = [steepness("laplace", s) * np.sqrt(2 * s) for s in (50.0, 400.0)]
    assert laplace[0] < laplace[1] < 1
    with pytest.raises(Refused, match="no tail"):
        steepness("cauchy", 10.0)


def test_adam_grows_by_2_over_k_and_not_by_1_over_k():
    recipe = replace(
        Recipe(), data="uniform", learning_rate=1e-2, schedule="constant", seeds=2, steps=1200
    )
    trained = train(recipe)
    seen = diagnose(trained, sequences=512)
    assert seen.found.all()
    grown = growth(trained, seen.found, seen.fvu)
    assert grown.least == grown.most == pytest.approx(2 / grown.steepness)
    order = grown.slope * grown.steepness
    assert (np.abs(order - 2) < np.abs(order - 1)).all()


def test_a_rule_without_a_law_is_refused(trained, found):
    other = trained._replace(recipe=replace(trained.recipe, optimizer="muon"))
    with pytest.raises(Refused, match="no law for 'muon'"):
        growth(other, found, np.zeros(len(found)))
    told = growth(trained, np.zeros_like(found), np.zeros(len(found)))  # nobody counts
    assert np.isfinite(told.least)
    assert set(ORDER) == {"adam", "sgd", "sign"}
    assert NEAR.w_v1 == -1
