"""A verdict follows from interval and claimed values alone."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from experiments.findings import ABOVE_ZERO, BELOW_ZERO, Finding, Region
from experiments.intervals import Interval

ends = st.floats(-3, 3)


def verdict(low, high, claimed, n=9):
    effect = Interval((low + high) / 2, low, high, n)
    return Finding("a/b", "case", effect, "unit", "units", claimed, "control").verdict


@pytest.mark.parametrize(
    ("low", "high", "claimed", "wanted"),
    [
        (0.1, 0.2, ABOVE_ZERO, "shown"),
        (-0.2, -0.1, ABOVE_ZERO, "contradicted"),
        (-0.1, 0.2, ABOVE_ZERO, "not shown"),
        (0.0, 0.2, ABOVE_ZERO, "not shown"),
        (0.0, 0.0, ABOVE_ZERO, "not shown"),  # no unit moved: that is no evidence either way
        (-0.2, -0.1, BELOW_ZERO, "shown"),
        (0.25, 0.35, Region(0.2, 0.4), "shown"),
        (0.35, 0.45, Region(0.2, 0.4), "not shown"),
        (0.1, 0.5, Region(0.2, 0.4), "not shown"),
        (0.41, 0.5, Region(0.2, 0.4), "contradicted"),
        (-math.inf, 0.5, BELOW_ZERO, "not shown"),
        (math.nan, math.nan, ABOVE_ZERO, "not shown"),
    ],
)
def test_verdicts(low, high, claimed, wanted):
    assert verdict(low, high, claimed) == wanted


def test_without_an_effect_nothing_is_said():
    untested = Finding("a/b", "", None, "", "", ABOVE_ZERO, "", "needs a GPU")
    assert untested.verdict == "untested"


@given(ends, ends, ends)
def test_the_opposite_claim_has_the_opposite_verdict(a, b, bound):
    low, high = sorted((a, b))
    assume(bound not in (low, high))
    mirrored = {"shown": "contradicted", "contradicted": "shown", "not shown": "not shown"}
    said = verdict(low, high, Region(low=bound))
    assert verdict(low, high, Region(high=bound)) == mirrored[said]


@given(ends, ends, ends, st.floats(0, 1))
def test_a_wider_interval_never_says_more(a, b, bound, more):
    low, high = sorted((a, b))
    said = verdict(low - more, high + more, Region(low=bound))
    assert said in ("not shown", verdict(low, high, Region(low=bound)))
