"""Shares of sinks over sequences, and paired differences of them."""

import numpy as np
import pytest

from experiments.recalls import Ratio, clear, difference, ratios, recalls, share, shown
from mech.probes import sinks


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_shares_are_those_of_the_probe(rng):
    """mech's agreement, which has no intervals, from all sequences at once."""
    found, dense = rng.random((2, 3, 5, 4, 70)) < 0.2
    kept = recalls(ratios(found, dense))
    expected = sinks.agreement(found, dense)
    for ours, theirs in zip(kept, expected, strict=True):
        assert ours is not None
        assert ours.mean == pytest.approx(theirs)
        assert ours.low <= ours.mean <= ours.high
        assert ours.n == 5


def test_the_interval_covers_the_share_of_the_population(rng):
    """Sequences of different sizes: the share of all, not the mean of the sequences' shares."""
    covered = 0
    for _ in range(200):
        whole = rng.integers(1, 40, 30).astype(float)
        # Longer sequences lose more: the mean of shares would be biased.
        part = rng.binomial(whole.astype(int), 1 - whole / 50).astype(float)
        true = 1 - (np.arange(1, 40) ** 2).sum() / np.arange(1, 40).sum() / 50
        found = share(Ratio(part, whole))
        assert found is not None
        covered += found.low <= true <= found.high
    assert covered >= 178  # of 190 expected; 178 has probability 1% at a true 93%


def test_a_difference_is_paired(rng):
    """Sequences differ by much, the two models on each of them by little."""
    whole = np.full(20, 100.0)
    base = rng.integers(10, 90, 20).astype(float)
    a, b = Ratio(base, whole), Ratio(base + 3, whole)
    found, alone = difference(a, b), share(b)
    assert found is not None
    assert alone is not None
    assert (found.mean, found.low, found.high) == pytest.approx((0.03, 0.03, 0.03))
    assert clear(found) == 1
    assert clear(difference(b, a)) == -1
    assert alone.high - alone.low > 0.1


def test_nothing_to_share_has_no_interval():
    nothing, one = Ratio(np.zeros(4), np.zeros(4)), Ratio(np.ones(4), np.array([0, 0, 0, 9.0]))
    assert share(nothing) is None
    assert difference(nothing, one) is None
    # In a third of the resamples the only sequence with a sink is not drawn.
    assert share(one) is None
    assert clear(None) == 0
    assert shown(None) == "–"
