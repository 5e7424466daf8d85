"""Intervals that cover what they should, and no more."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.intervals import interval


def test_units_that_agree_leave_no_doubt():
    found = interval(np.full(7, 3.25))
    assert (found.mean, found.low, found.high, found.n) == (3.25, 3.25, 3.25, 7)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """95% nominal at n = 24; the percentile bootstrap is known to fall a little short of it."""
    generator = np.random.default_rng(0)
    hits = 0
    for seed in range(400):
        found = interval(generator.normal(size=24), seed=seed)
        hits += found.low <= 0 <= found.high
    # Three standard errors of 400 draws around 0.93.
    assert 0.89 <= hits / 400 <= 0.97


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(-1e3, 1e3))
def test_shifting_the_units_shifts_the_interval(values, by):
    units = np.array(values)
    one, other = interval(units), interval(units + by)
    slack = 1e-9 * (np.abs(units).max() + abs(by) + 1)
    for a, b in zip(one[:3], other[:3], strict=True):
        assert b == pytest.approx(a + by, abs=slack)
    assert one.low <= one.mean + slack
    assert one.mean <= one.high + slack
