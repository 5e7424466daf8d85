"""The enclosures contain what the literal model does, at every point that was tried."""

import decimal
import math
from fractions import Fraction

import mpmath
import pytest
from flint import arb, ctx

from tests.toy.certify.cases import draw, generator, number, points, statement, truth
from toy.certify import compare, decimals, enclose
from toy.certify.boxes import halves
from toy.certify.intervals import Interval, Poisoned, precision
from toy.certify.prove import at_point

BLUR = mpmath.mpf(10) ** -60  # of the reference, relative to its largest term: X or B


def check_case(rng, bits=None):
    """One box, its enclosures, and how many points were held against them."""
    whole, box = draw(rng)
    T, t, X = whole.T, whole.t, whole.X
    try:
        if bits is None:
            with precision():
                error, bound = enclose.error(T, t, box), compare.bound(T, t, X, box)
                part = compare.ratio(T, t, X, box)
        else:
            with ctx.workprec(bits):
                error, bound = enclose.error(T, t, box), compare.bound(T, t, X, box)
                part = compare.ratio(T, t, X, box)
        other = decimals.ratio(T, t, X, dict(box))
    except (Poisoned, decimals.Rejected):
        return 0
    seen = points(rng, box, 10)
    for at in seen:
        with mpmath.workdps(150):
            value, B = truth(T, t, X, at)
            room = BLUR * B
            assert number(error.lo) - room <= value <= number(error.hi) + room
            assert number(bound.lo) * (1 - BLUR) <= B <= number(bound.hi) * (1 + BLUR)
            assert abs(value) <= number(part.hi) * B + room
            assert abs(value) <= mpmath.mpf(str(other)) * B + room
    return len(seen)


def test_enclosures_contain_the_literal_model():
    assert sum(check_case(generator(seed)) for seed in range(200)) > 1200


@pytest.mark.parametrize("bits", [12, 24, 53])
def test_enclosures_hold_in_few_bits_too(bits):
    """Where rounding is as large as the numbers, rounding to the nearest would soon be caught."""
    assert sum(check_case(generator(seed), bits) for seed in range(25)) > 20


@pytest.mark.parametrize("digits", [4, 7])
def test_the_checkers_enclosure_holds_in_few_digits_too(digits, monkeypatch):
    for name, way in (("DOWN", decimal.ROUND_FLOOR), ("UP", decimal.ROUND_CEILING)):
        few = decimal.Context(digits, way, decimal.MIN_EMIN, decimal.MAX_EMAX, traps=decimals.TRAPS)
        monkeypatch.setattr(decimals, name, few)
    decimals._exp.cache_clear()
    try:
        assert sum(check_case(generator(seed)) for seed in range(25)) > 20
    finally:
        decimals._exp.cache_clear()


def test_prover_and_checker_enclose_the_same_by_other_means():
    """Their formulas are one, so that what one proves the other confirms: up to rounding."""
    rng, seen = generator(7), 0
    for _ in range(60):
        whole, box = draw(rng, most=9)
        try:
            with precision():
                mine = float(compare.ratio(whole.T, whole.t, whole.X, box).hi)
        except Poisoned:
            with pytest.raises(decimals.Rejected):
                decimals.ratio(whole.T, whole.t, whole.X, dict(box))
            continue
        theirs = float(decimals.ratio(whole.T, whole.t, whole.X, dict(box)))
        assert math.isclose(mine, theirs, rel_tol=1e-9)
        seen += 1
    assert seen > 40


def test_the_bound_is_monotone_under_inclusion():
    rng = generator(3)
    for _ in range(25):
        whole, box = draw(rng)
        try:
            with precision():
                outer = compare.bound(whole.T, whole.t, whole.X, box)
                for axis in "sbd":
                    for half in halves(box, axis):
                        inner = compare.bound(whole.T, whole.t, whole.X, half)
                        assert outer.lo <= inner.lo <= inner.hi <= outer.hi
        except Poisoned:
            continue


def test_enclosures_shrink_to_the_value_at_a_point():
    """At one point nothing is lost but rounding: the residual form keeps all digits."""
    whole = statement(s="60", d="2")  # f - m is about 1e-21
    point = {axis: low for axis, (low, _) in whole.box.items()} | {"x5": Fraction(1, 3)}
    error, bound = at_point(whole, point)
    with precision():
        assert (error.hi - error.lo) / error.hi < 1e-30
        assert (bound.hi - bound.lo) / bound.hi < 1e-30
        assert error.hi < 1e-18


def test_the_largest_deviation_is_found_by_trying_every_corner():
    """max sum |c_j - mean c| is at a corner of the box; `_deviation` need not try them all."""
    rng = generator(0)
    for n in (2, 3, 5, 6):
        for _ in range(20):
            ends = rng.uniform(-1, 1, (n, 2))
            ends.sort(axis=1)
            best = 0.0
            for corner in range(2**n):
                c = [ends[j][corner >> j & 1] for j in range(n)]
                best = max(best, sum(abs(v - sum(c) / n) for v in c))
            with precision():
                lifts = [Interval(arb(float(low)), arb(float(high))) for low, high in ends]
                assert math.isclose(float(enclose._deviation(lifts).hi), best, rel_tol=1e-12)


def test_a_box_whose_query_may_be_negative_is_refused():
    whole = statement(s="3", b="5", d="0.1")
    with precision(), pytest.raises(Poisoned):
        compare.bound(whole.T, whole.t, whole.X, whole.box)
    with precision(), pytest.raises(Poisoned):
        compare.ratio(whole.T, whole.t, whole.X, whole.box)
    with pytest.raises(decimals.Rejected):
        decimals.ratio(whole.T, whole.t, whole.X, dict(whole.box))
