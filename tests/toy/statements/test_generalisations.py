"""Separators, statistics and constructions at single cases that can be worked out by hand."""

import numpy as np
import pytest

from toy.errors import NonPositiveQuery, NoSegment, NotFinite, Refused, ScaleTooSmall
from toy.statements import (
    alternatives,
    gauge,
    limits,
    literal,
    release,
    separators,
    statistics,
    sufficiency,
    widths,
)
from toy.statements.cases import Setting
from toy.statements.gauge import Gauge
from toy.statements.separators import Marked

X7 = np.array([[0.9, -0.4, 0.0, 0.8, -0.6, 0.0, 0.3, 0.7, -0.1]])
TWO = Marked(9, (3, 6), (30.0, 30.0), 1.0)


def test_identical_separators_average_after_the_first():
    f = literal.run(literal.theorem_model(0.0), separators.embed(TWO, X7)).output[0, -1, 0]
    mean = np.mean([0.8, -0.6, 0.3, 0.7, -0.1])
    assert abs(f - mean) <= separators.identical_bound(TWO) + 1e-12
    assert separators.identical_bound(TWO) < 1e-8
    assert abs(f - np.mean([0.3, 0.7, -0.1])) > 0.05


def test_the_leak_past_identical_separators_is_attained():
    """All tags are 29 to many digits, logits 6: X before the first, -X after it."""
    at = Marked(12, (6, 8), (30.0, 30.0), 1.0, 0.0, 6 / 29**2)
    x = np.where(np.arange(12) < 5, 1.0, -1.0)[None]
    f = literal.run(literal.theorem_model(0.0, 0.0, at.d), separators.embed(at, x)).output[0, -1, 0]
    bound = separators.identical_bound(at)
    uneven = 6 * 10 * np.exp(1 - 29.0)  # 2 tanh(Delta / 4) is at most L rho
    assert bound - uneven <= f + 1 <= bound + 1e-12


def test_numbered_separators_average_every_segment_at_its_own_end():
    at = TWO._replace(scales=(25.0, 29.0))
    f = literal.run(literal.theorem_model(0.0), separators.embed(at, X7)).output[0, :, 0]
    for end, own in [(4, [0.8]), (5, [0.8, -0.6]), (8, [0.3, 0.7]), (9, [0.3, 0.7, -0.1])]:
        assert abs(f[end - 1] - np.mean(own)) <= separators.numbered_bound(at, end) + 1e-12
        assert separators.numbered_bound(at, end) < 1e-4


def test_one_separator_of_either_kind_is_the_theorem():
    at = Marked(9, (4,), (9.0,), 1.0, 0.2, 0.8)
    one = separators.identical_bound(at)
    assert one == pytest.approx(separators.numbered_bound(at, 9), rel=1e-12)
    assert one == pytest.approx(gauge.error_bound(Gauge(9, 4, 1.0, 9.0, 1.0, 0.2, 0.8)), rel=1e-12)


def test_mean_tag_rises_with_every_separator():
    tags = [separators.mean_tag([5.0 + 0.3 * k for k in range(count)]) for count in range(7)]
    assert tags[0] == 0
    assert tags[1] == 4
    assert (np.diff(tags) > 0).all()


@pytest.mark.parametrize(
    ("at", "refusal"),
    [
        (TWO._replace(seps=(6, 3)), NoSegment),
        (TWO._replace(seps=(3, 9)), NoSegment),
        (TWO._replace(scales=(30.0,)), NoSegment),
        (TWO._replace(d=-1.0), NonPositiveQuery),
        (TWO._replace(scales=(30.0, float("inf"))), NotFinite),
    ],
)
def test_separators_are_refused(at, refusal):
    with pytest.raises(refusal):
        separators.identical_bound(at)
    with pytest.raises(refusal):
        separators.numbered_bound(at, 8)


def test_separators_of_other_scales_are_not_what_the_statements_speak_of():
    """At scales 12, 9 the bound of identical ones at 12 would be 0.032, the error is 0.68."""
    falling = Marked(14, (3, 6), (12.0, 9.0), 1.0)
    for bound in (separators.identical_bound, lambda at: separators.numbered_bound(at, 14)):
        with pytest.raises(Refused, match="scales"):
            bound(falling)
        with pytest.raises(ScaleTooSmall):
            bound(falling._replace(scales=(1.0, 1.0)))
    with pytest.raises(Refused, match="share one scale"):
        separators.identical_bound(falling._replace(scales=(9.0, 12.0)))
    assert separators.numbered_bound(falling._replace(scales=(9.0, 12.0)), 14) > 0


BOUNDS = {
    "other coordinates": lambda at: widths.error_bound(at, 1.5),
    "1/sqrt(d_head)": lambda at: widths.error_bound(at, 1.0, 1.2),
    "no mask": limits.unmasked_bound,
    "corollary": sufficiency.simple_bound,
    "moment": lambda at: statistics.moment_bound(at, 0.2),
    "variance": lambda at: statistics.variance_bound(at, 0.2),
    "tilted mean": lambda at: statistics.tilt_bound(at, 0.5),
    "C1": lambda at: alternatives.gain_bound(at.T, at.t, at.X, 20.0, at.d),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_no_bound_without_a_guaranteed_query(name):
    """q <= 0 releases the numbers before [SEP] instead, which no formula here speaks of."""
    bound, at = BOUNDS[name], Setting(9, 4, 1.0, 12.0, 0.3, 1.0)
    assert bound(at) > 0
    with pytest.raises(NonPositiveQuery, match="not positive"):
        bound(at._replace(d=-1.0))
    if name not in ("tilted mean", "C1"):  # which have b = 0
        with pytest.raises(NonPositiveQuery, match="not positive"):
            bound(at._replace(b=-30.0))


def test_the_tilted_mean_is_bounded_for_one_sign_of_the_tilt():
    with pytest.raises(Refused, match="beta >= 0"):
        statistics.tilt_bound(Setting(9, 4, 1.0, 12.0, 0.0, 1.0), -0.5)


@pytest.mark.parametrize("end", [2, 3, 6, 10])
def test_only_numbers_after_a_separator_end_a_segment(end):
    with pytest.raises(NoSegment):
        separators.numbered_bound(TWO, end)


@pytest.mark.parametrize(("n", "beta"), [(2, 1.0), (7, 0.3), (50, 20.0)])
def test_below_maximum_is_the_largest_over_two_level_inputs(n, beta):
    """max over y of (n-1) y / (e^y + n - 1), over beta, by a fine grid."""
    y = np.linspace(0, 12, 400_001)
    grid = ((n - 1) * y / (np.exp(y) + n - 1)).max() / beta
    found = statistics.below_maximum(n, beta)
    assert found == pytest.approx(grid, rel=1e-8)
    assert found <= np.log(n) / beta


def test_one_number_is_its_own_maximum_and_bad_ones_are_refused():
    assert statistics.below_maximum(1, 2.0) == 0.0
    for n, beta in [(0, 1.0), (3, 0.0), (3, float("nan"))]:
        with pytest.raises(Refused):
            statistics.below_maximum(n, beta)


def test_c1_does_not_know_how_large_numbers_are():
    one, hundred = (alternatives.gain_bound(16, 6, X, 20.0, 20.0) for X in (1.0, 100.0))
    assert hundred == pytest.approx(100 * one, rel=1e-12)
    assert one < 2e-7


@pytest.mark.parametrize(("T", "t"), [(2, 1), (3, 1), (4, 3), (24, 1), (24, 23)])
def test_c2_flags_exactly_the_numbers_after_sep(T, t):
    tag = np.where(np.arange(1, T + 1) > t, 1 / np.arange(1, T + 1), 0.0)
    tag[t - 1] = 1 + 1 / t
    stream = np.stack([np.zeros(T), tag], axis=-1)[None]
    flags = alternatives.clipped(max(T, 4)).apply(stream)[0, :, 1]
    np.testing.assert_allclose(flags, np.arange(1, T + 1) > t, atol=1e-12)


def test_c3_keeps_tags_and_c4_shrinks_them_while_both_average():
    for s in (30.0, 300.0):
        three = Gauge(16, 6, 2.0, s, 2 / (s - 1), 0.0, 30.0)
        four = Gauge(16, 6, 2.0, s, 0.5 / (s - 1), 0.0, -240.0)
        for at in (three, four):
            assert gauge.error_bound(at) < 2e-8
            assert gauge.largest_tag(at)[5] > s - 3  # [SEP] itself stands out as before
        assert np.delete(gauge.largest_tag(three), 5).max() < 1.07
        assert gauge.largest_tag(four)[-1] < 0.6 * gauge.largest_tag(four)[0]


def test_crowds_are_what_they_bound():
    """All x = X attains rho in the last row; alternating signs come near rho_0 in the first."""
    T, t, X, s = 9, 4, 1.2, 7.0
    crowds = release.crowds(T, t, X * X, s - 1)
    x = np.full((1, T), X)
    pattern = literal.run(literal.theorem_model(s), literal.embed(x, t, s)).pattern_1[0]
    assert (1 - pattern[-1, t - 1]) == pytest.approx(crowds.rho / (1 + crowds.rho), rel=1e-9)
    assert crowds.spread == pytest.approx(1 / (1 + crowds.rho_0) - 1 / (1 + crowds.rho), rel=1e-9)
    x[0, :t] = -X
    pattern = literal.run(literal.theorem_model(s), literal.embed(x, t, s)).pattern_1[0]
    own = np.exp(1 - s + X * X) - np.exp(1 - s)  # rho_0 counts e^0 for the row's own number
    missed = pattern[t, t - 1] ** -1 - 1
    assert missed == pytest.approx(crowds.rho_0 + own, rel=1e-9)
