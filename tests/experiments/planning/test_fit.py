"""Costs from measurements."""

import numpy as np

from experiments.planning.fit import fitted


def test_costs_that_made_the_numbers_are_found():
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = rng.uniform(1, 10, (5, 3)) * [1, 1e6, 1e-6]
        cost = rng.uniform(0, 1, 3) / [1, 1e6, 1e-6]
        np.testing.assert_allclose(fitted(rows.tolist(), (rows @ cost).tolist()), cost, rtol=1e-6)


def test_no_cost_is_negative_and_the_best_such_is_found():
    # y falls with the second amount: without a sign, its cost would be negative.
    rows = [[1.0, 1.0], [2.0, 4.0], [3.0, 9.0]]
    found = fitted(rows, [10.0, 18.0, 22.0])
    assert found[1] == 0
    grid = np.linspace(0, 20, 2001)
    errors = [sum((c * r[0] / y - 1) ** 2 for r, y in zip(rows, [10, 18, 22], strict=True))
              for c in grid]  # fmt: skip
    assert abs(found[0] - grid[int(np.argmin(errors))]) < 0.01


def test_amounts_that_are_zero_cost_nothing():
    first, second = fitted([[2.0, 0.0], [4.0, 0.0]], [1.0, 2.0])
    assert abs(first - 0.5) < 1e-12
    assert second == 0
