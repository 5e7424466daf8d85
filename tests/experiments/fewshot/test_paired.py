"""Exact McNemar, Holm, bootstrap of pairs, and the gap that could have been shown."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.fewshot.paired import holm, mcnemar, paired
from experiments.fewshot.power import detectable


@given(st.integers(0, 9), st.integers(0, 9))
def test_mcnemar_counts_the_throws_as_unequal_or_more(b, c):
    n = b + c
    throws = [sum(throw) for throw in itertools.product((0, 1), repeat=n)]
    far = sum(abs(2 * heads - n) >= abs(b - c) for heads in throws)
    assert mcnemar(b, c) == far / 2**n


@settings(max_examples=20)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_a_pair_turned_round_has_the_opposite_gain_and_the_same_p(pairs):
    first, second = np.array(pairs).T
    one, other = paired(first, second), paired(second, first)
    assert one.gain.mean == -other.gain.mean
    assert one.gain.mean == pytest.approx(second.mean() - first.mean())
    assert one.p == other.p
    assert (one.only_first, one.only_second) == (other.only_second, other.only_first)
    assert one.gain.low <= one.gain.mean <= one.gain.high


def test_answers_to_other_items_are_no_pairs():
    with pytest.raises(ValueError, match="same items"):
        paired(np.ones(3, bool), np.ones(4, bool))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_between_p_and_bonferroni_and_keeps_the_order(values):
    p = {f"t{i}": value for i, value in enumerate(values)}
    found = holm(p)
    for name, value in p.items():
        assert value <= found[name] <= min(1, len(p) * value) + 1e-15
    ordered = sorted(p, key=lambda name: (p[name], name))
    assert [found[name] for name in ordered] == sorted(found.values())
    assert found[ordered[0]] == min(1, len(p) * p[ordered[0]])


def test_holm_by_hand():
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})


def test_the_detectable_gap_is_found_in_four_of_five_studies():
    n, rng = 200, np.random.default_rng(0)
    lose, differ = 0.1, 0.3
    gap = detectable(rng.choice([-1.0, 0, 1], 100_000, p=[0.15, 0.7, 0.15])) * math.sqrt(
        100_000 / n
    )
    lose, win = differ / 2 - gap / 2, differ / 2 + gap / 2
    outcomes = rng.multinomial(n, [lose, win, 1 - differ], size=400)
    shown = np.mean([mcnemar(b, c) < 0.05 for b, c, _ in outcomes.tolist()])
    assert 0.72 < shown < 0.86  # the exact test is a little shy of its 5%


def test_items_that_never_differ_do_not_say_that_no_gap_was_missed():
    assert detectable(np.zeros(100)) == pytest.approx(2.8016 * math.sqrt(3) / 100, rel=1e-4)
    assert detectable(np.zeros(1)) == math.inf
