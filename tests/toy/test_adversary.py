"""The search climbs, stays in its box, and finds the worst inputs that are known."""

import numpy as np
import pytest

from toy import adversary, bounds, theorem
from toy.adversary import PARTS, blocks, climb, starts_of, worst_inputs


def error_of(t, **at):
    return lambda x: np.abs(theorem.residual(x, t, **at))


@pytest.mark.parametrize("seed", range(5))
def test_the_search_only_climbs(seed):
    error = error_of(4, s_tag=9.0 + seed, b=0.3, d=0.5)
    start = starts_of(np.random.default_rng(seed), error, 11, 4, 1.5, 9)
    found = climb(np.random.default_rng(seed), error, start, 4, 1.5)
    assert (np.abs(found) <= 1.5).all()
    assert (error(found) >= error(start)).all()
    inside = np.random.default_rng(seed).uniform(-1.5, 1.5, (500, 11))
    assert error(found).max() > error(inside).max()
    assert start.shape == (9, 11)


def test_blocks_are_in_the_box_and_hold_both_known_enemies():
    x = np.delete(blocks(7, 3, 2.0), 2, axis=1)
    assert (np.abs(x) <= 2).all()
    for known in ([2, 2, -2, -2, -2, -2], [2, 2, 0, 0, 2, -2]):
        assert (x == known).all(axis=1).any()


def test_refinement_finds_what_a_grid_does_not():
    """The worst x_T at the worst corner is inside (-X, X), and a fine scan finds no better one."""
    T, t, X, at = 16, 13, 2.05, {"s_tag": 17.0, "d": 0.25}
    error = error_of(t, **at)
    scan = np.full((20_001, T), -X)
    scan[:, -1] = np.linspace(-X, X, len(scan))
    found = error(worst_inputs(T, t, X, 17.0, d=0.25, seed=1)).max()
    assert found >= error(scan).max() * (1 - 1e-7)
    assert found > error(scan[:: 20_000 // PARTS]).max() * (1 + 1e-7)


def test_more_starts_find_nothing_more():
    """Where ten starts and a hundred end at the same error, the search is not what limits it."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        T = int(rng.integers(3, 10))
        t, X, s = int(rng.integers(1, T)), float(rng.uniform(0.3, 2.5)), float(rng.uniform(4, 20))
        error = error_of(t, s_tag=s, b=0.1, d=1.0)
        few, many = (
            error(worst_inputs(T, t, X, s, 0.1, starts=n, seed=n)).max() for n in (10, 100)
        )
        assert few > 0.999 * many


def test_the_sharpest_known_case_is_attained():
    """n = 1 and t = 2: the bound is a leak that one input reaches."""
    at = {"s_tag": 29.0, "b": -0.2, "d": 0.7}
    worst = error_of(2, **at)(worst_inputs(3, 2, 1.2, *at.values())).max()
    assert worst > 0.99 * bounds.error_bound(3, 2, 1.2, **at)


def test_scores_in_parts_choose_the_same_starts(monkeypatch):
    """A long sequence is scored a few rows at a time; which rows go together must not matter."""
    T, t, X = 7, 3, 1.3

    def chosen() -> np.ndarray:
        return worst_inputs(T, t, X, 5.0, sweeps=0, seed=3)

    whole = chosen()
    monkeypatch.setattr(adversary, "TABLE", 3 * T * T + 1)
    np.testing.assert_array_equal(chosen(), whole)
