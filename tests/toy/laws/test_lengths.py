"""Other lengths: the leak against its law, and the two numbers a seed is judged by."""

import numpy as np
import pytest

from toy.laws.lengths import law, leak_cost, leak_law, lengths
from toy.laws.measure import centred, look, product, stacked, target, unexplained, with_product
from toy.laws.tails import draw
from toy.transformer import Weights, forward, theorem_weights


def test_look_is_the_transformer(weights):
    drawn = draw(np.random.default_rng(0), "gaussian", 5, shortest=8, longest=9)
    seen = look(weights, drawn)
    same = look(with_product(weights, product(weights)), drawn)
    for seed in range(len(weights.s_tag)):
        one = Weights(*(np.asarray(field, dtype=np.float64)[seed] for field in weights))
        for case, (x, t, last) in enumerate(zip(drawn.x, drawn.t, drawn.last, strict=True)):
            f, _ = forward(one, x[None, :last], int(t))
            assert seen.output[seed, case] == pytest.approx(f[0], abs=1e-12)
    np.testing.assert_allclose(same.output, seen.output, atol=1e-12)


@pytest.mark.parametrize("gap", [2.0, 5.0])
def test_the_leak_follows_its_law(gap):
    """At s = 30 every logit after [SEP] is d (s - 1)^2: the leak is the error, but for [SEP]'s."""
    drawn = draw(np.random.default_rng(1), "uniform", 4000, shortest=24, longest=24)
    weights = stacked([theorem_weights(30.0, 0.0, gap / 29**2)])
    seen, m = look(weights, drawn), target(drawn)
    known = seen.gap[~np.isnan(seen.gap)]
    np.testing.assert_allclose(known, gap, rtol=1e-6)
    assert np.isnan(seen.gap).sum() == (drawn.t == 1).sum()
    # [SEP] has the weight of a number before it and draws towards 0 instead.
    p = np.exp(-gap) / (drawn.last - drawn.t + drawn.t * np.exp(-gap))
    np.testing.assert_allclose(seen.output[0] - m, seen.leak[0] - p * m, atol=1e-9)
    leaking = drawn.t > 1
    n = (drawn.last - drawn.t)[leaking]
    ratio = seen.leak[0, leaking] ** 2 / leak_cost(drawn.t[leaking], n, gap)
    # A squared mean of uniform numbers over its own mean has a variance below 2. The law leaves
    # [SEP]'s own weight out of the sum.
    room = 5 * np.sqrt(2 / len(n)) + (2 / (drawn.t[leaking] - 1 + n * np.exp(gap))).mean()
    assert abs(ratio.mean() - 1) <= room < 0.25


def test_the_law_averages_over_the_places_of_sep():
    by_hand = [leak_cost(np.array([t]), np.array([9 - t]), 3.0)[0] for t in range(1, 9)]
    target_variance = np.mean([1 / n for n in range(1, 9)])
    assert leak_law(9, 3.0) == pytest.approx(np.mean(by_hand) / target_variance)


def test_one_large_number_is_a_floor_and_the_leak_is_not():
    floor = [law(T, 12.0, 15.0, "gaussian") for T in (8, 64, 256)]
    leak = [leak_law(T, 12.0) for T in (8, 64, 256)]
    assert max(floor) < 2.5 * min(floor)
    assert leak[2] > 100 * leak[0]
    assert leak[2] < floor[2] / 10


def test_trained_seeds_are_foreseen_within_the_order_of_magnitude(weights):
    """From s_tag and the gap alone; at s_tag doubled the law would be wrong by e^4 and more."""
    seen = lengths(weights, (8, 40), sequences=600)
    assert seen.measured.shape == seen.law.shape == (len(weights.s_tag), 2)
    off = np.abs(np.log(np.median(seen.measured / seen.law, axis=0)))
    assert (off < np.log(5)).all()
    assert (seen.leak < 2 * seen.measured).all()


def test_unexplained_variance_and_the_best_constant():
    drawn = draw(np.random.default_rng(2), "gaussian", 500, window=(1.0, 3.0))
    m = target(drawn)
    for k in (0, 7):
        assert m[k] == pytest.approx(drawn.x[k, drawn.t[k] : drawn.last[k]].mean())
    np.testing.assert_allclose(unexplained(np.stack([m, 0 * m, 3 * m]), drawn), [0, 1, 4])
    np.testing.assert_allclose(centred(m[None] + 0.7, drawn), m[None], atol=1e-12)
