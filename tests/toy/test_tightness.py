"""No bound is violated, none is loose, and the attack notices one that is 5% too small."""

import numpy as np
import pytest
from hypothesis import given

from tests.toy import strategies
from toy import bounds, position, theorem, tightness
from toy.adversary import climb, starts_of, worst_inputs
from toy.logs import quiet


def test_both_bounds_hold_and_the_sharper_one_is_sharp():
    told = []
    found = tightness.check_bound(n=400, adversarial=605, seed=1, advance=told.append)
    assert found.violations == 0
    assert told[-1] == 1005
    assert (found.random_inputs, found.adversarial_inputs) == (400, 605)
    assert found.settings > 20
    for spread in (found.tightness, found.sharper):
        assert (np.diff(spread) >= 0).all()
        assert 1 - 1e-6 <= spread[0] < 1.1
    assert found.sharper[2] <= 1.6
    assert (found.sharper <= found.tightness).all()
    assert found.closest <= 1 + 1e-6


BOTH = [(bounds, "error_bound"), (position, "position_bound")]


@pytest.mark.parametrize(("module", "name"), BOTH)
def test_a_bound_on_the_error_that_is_5_percent_too_small_is_caught(module, name, monkeypatch):
    right = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *a, **k: 0.95 * right(*a, **k))
    assert tightness.check_bound(n=0, adversarial=300, seed=0).violations > 0


def attacked(score, T, t, X):
    """The largest score that the search finds."""
    rng = np.random.default_rng(0)
    return score(climb(rng, score, starts_of(rng, score, T, t, X, 10), t, X)).max()


SHAPES = [(2, 1), (9, 4), (12, 11), (7, 1)]


def test_a_sink_bound_that_is_5_percent_too_small_is_caught():
    """1 - A1[T, t] <= rho / (1 + rho) with rho scaled by 0.95 fails, at every shape."""
    for T, t in SHAPES:
        X, s = 1.3, 6.0
        defect = 1 - bounds.sink_bounds(T, t, X, s_tag=s).lower[-1]
        found = attacked(lambda x, t=t, s=s: 1 - theorem.sink(x, t, s)[..., -1], T, t, X)
        assert 0.95 * defect < found <= defect * (1 + 1e-12)


def test_a_readout_bound_that_is_5_percent_too_small_is_caught():
    """TV(A2[T, .], uniform) <= 0.95 of its bound fails where all is leak."""

    def distance(x, t, at):
        row = theorem.readout(x, t, **at)
        uniform = np.where(np.arange(x.shape[-1]) < t, 0.0, 1 / (x.shape[-1] - t))
        return np.abs(row - uniform).sum(axis=-1) / 2

    exceeded = 0
    for T, t in SHAPES:
        at = {"s_tag": 12.0, "b": 0.2, "d": 0.05}
        bound = bounds.readout_bound(T, t, 0.6, **at)
        found = attacked(lambda x, t=t, at=at: distance(x, t, at), T, t, 0.6)
        assert found <= bound * (1 + bounds.relative_rounding(0.6, s_tag=12.0, b=0.2))
        exceeded += found > 0.95 * bound
    assert exceeded >= 2


@given(strategies.settings(longest=12))
def test_the_sharper_bound_is_never_the_larger_one(setting):
    T, t, X, at = setting
    assert 0 <= position.position_bound(T, t, X, **at) <= bounds.error_bound(T, t, X, **at)


def at_its_own_numbers(T, t, X, at, x):
    """m - f, and what the proof bounds it with at this input's own f, v and c, where f <= m."""
    error = float(theorem.residual(x, t, **at))
    if error > 0:
        x, error = -x, -error
    # f carries the rounding of the mean and of the error, and so does each z_j.
    room = bounds.relative_rounding(X, s_tag=at["s_tag"], b=at["b"])
    off = 16 * np.finfo(float).eps * X + room * -error
    f = np.clip(x[t:].mean() + error + off * np.array([-1, 1]), -X, X)
    if np.abs(f).max() > X * (1 - 1e-6):
        return 0.0, 0.0
    below = np.array([np.maximum(end - x[t:], 0).sum() / (X + end) for end in f])
    before = np.full(2, x[: t - 1].mean() if t > 1 else 0.0) + off * np.array([-1, 1])
    cell = position._Cells(*(ends[:, None] for ends in (f, before, below)))
    known = min(bounds.error_bound(T, t, X, **at), 2 * X)
    problem = position._Problem(T, t, X, **at, known=known)
    with quiet():
        found = position._on_cells(problem, cell, position._least_crowds(problem))
    return -error, float(found[0] * (1 + room) + tightness.SMALLEST)


@given(strategies.cases(longest=12))
def test_the_inequality_of_the_proof_holds_at_its_own_numbers(case):
    """A cell as small as rounding allows: much less than the worst of the box."""
    error, bound = at_its_own_numbers(*case)
    assert error <= bound


def test_the_inequality_of_the_proof_holds_where_the_search_ends():
    rng, closest = np.random.default_rng(0), []
    for _ in range(60):
        at = tightness.draw(rng, 10)
        for x in worst_inputs(*at, starts=8, sweeps=1, seed=1):
            error, bound = at_its_own_numbers(at.T, at.t, at.X, at.at, x)
            assert error <= bound
            closest.append(error / bound if bound else 0.0)
    assert np.quantile(closest, 0.9) > 0.7
