"""Interval arithmetic, the prover's and the checker's, by one set of laws."""

import decimal
import itertools
from decimal import Decimal
from fractions import Fraction

import mpmath
import pytest
from flint import arb, ctx
from hypothesis import given
from hypothesis import strategies as st

from tests.toy.certify.cases import number
from toy.certify import decimals, intervals
from toy.certify.decimals import Rejected, Span, span
from toy.certify.intervals import Interval, Poisoned, between, exact, hull, precision

numbers = st.one_of(
    st.sampled_from([Fraction(0), Fraction(1), Fraction(-1, 3), Fraction(1, 10**30)]),
    st.fractions(-50, 50, max_denominator=10**6),
)
pairs = st.tuples(numbers, numbers).map(lambda ends: tuple(sorted(ends)))


def inside(ends):
    low, high = ends
    return [low, high, (low + high) / 2, low + (high - low) / 7]


def fraction(end):
    if isinstance(end, Decimal):
        return Fraction(end)
    mantissa, exponent = (int(part) for part in end.man_exp())
    return mantissa * Fraction(2) ** exponent


def holds(found, value):
    return fraction(found.lo) <= value <= fraction(found.hi)


MAKE = {"prover": lambda ends: between(*ends), "checker": lambda ends: span(*ends)}
DIVIDE = {"prover": lambda v, w: v / w, "checker": lambda v, w: v.over(w)}


@pytest.mark.parametrize("who", MAKE)
@given(pairs, pairs)
def test_arithmetic_contains_every_result(who, first, second):
    with precision():
        v, w = MAKE[who](first), MAKE[who](second)
        for x, y in itertools.product(inside(first), inside(second)):
            assert holds(v + w, x + y)
            assert holds(v - w, x - y)
            assert holds(v * w, x * y)
            assert holds(-v, -x)
            assert holds(v * Fraction(2, 7), x * Fraction(2, 7))
            size = v.magnitude() if who == "prover" else v.size()
            assert holds(size, abs(x))
            if who == "prover":
                assert holds(v.square(), x * x)
                assert v.square().lo >= 0
            if second[0] > 0:
                assert holds(DIVIDE[who](v, w), x / y)


FUNCTIONS = {
    "prover": {"exp": Interval.exp, "expm1": Interval.expm1, "tanh": Interval.tanh},
    "checker": {"exp": Span.exp, "expm1": Span.expm1, "growth": decimals.growth},
}
REFERENCE = {
    "exp": mpmath.exp,
    "expm1": lambda v: mpmath.exp(v) - 1,
    "tanh": mpmath.tanh,
    "growth": lambda v: (mpmath.exp(v) - 1) / v if v else mpmath.mpf(1),
}


@pytest.mark.parametrize(
    ("who", "name"), [(who, name) for who, rows in FUNCTIONS.items() for name in rows]
)
@given(pairs)
def test_functions_contain_every_value(who, name, ends):
    with precision(), mpmath.workdps(150):
        found = FUNCTIONS[who][name](MAKE[who](ends))
        for x in inside(ends):
            value = REFERENCE[name](mpmath.mpf(x.numerator) / x.denominator)
            low, high = (
                mpmath.mpf(str(end)) if isinstance(end, Decimal) else number(end)
                for end in (found.lo, found.hi)
            )
            assert low <= value <= high


@pytest.mark.parametrize("who", MAKE)
def test_what_is_not_representable_is_rounded_outwards(who):
    """An arithmetic that rounded to the nearest would give one number for both ends."""
    third = Fraction(1, 3)
    with precision():
        point = MAKE[who]((third, third))
        for found, value in (
            (point, third),
            (point * point, third * third),
            (point + Fraction(1, 7), third + Fraction(1, 7)),
            (DIVIDE[who](point, point + 1), Fraction(1, 4)),
        ):
            assert fraction(found.lo) < value < fraction(found.hi)
        with mpmath.workdps(100):
            e = mpmath.e
            found = MAKE[who]((Fraction(1), Fraction(1))).exp()
            low, high = (mpmath.mpf(str(fraction(v).numerator)) / fraction(v).denominator
                         for v in (found.lo, found.hi))  # fmt: skip
            assert low < e < high


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "[0 +/- inf]"])
def test_an_interval_without_finite_ends_is_refused(text):
    for ends in ((arb(text),), (arb(0), arb(text)), (arb(text), arb(0))):
        with pytest.raises(Poisoned):
            hull(*ends)


def test_ends_in_the_wrong_order_are_refused():
    with pytest.raises(Poisoned):
        hull(arb(2), arb(1))
    with pytest.raises(Poisoned):
        between(Fraction(2), Fraction(1))


def test_division_by_what_may_be_zero_is_refused():
    for low in (Fraction(-1), Fraction(0)):
        with pytest.raises(Poisoned):
            exact(1).__truediv__(between(low, Fraction(1)))
    with pytest.raises(Rejected):
        span(1).over(span(Fraction(0), Fraction(1)))


@pytest.mark.parametrize("power", [Decimal(10) ** 19, -(Decimal(10) ** 19)])
def test_an_exponential_that_leaves_the_arithmetic_is_raised_not_rounded(power):
    with pytest.raises(decimal.DecimalException):
        Span(power, power).exp()


def test_the_callers_precision_and_context_are_neither_used_nor_changed():
    with ctx.workprec(20), decimal.localcontext(decimal.Context(prec=3)):
        with precision():
            assert ctx.prec == intervals.BITS
            narrow = exact(Fraction(1, 3))
        assert ctx.prec == 20
        with precision():
            assert (narrow.hi - narrow.lo) < arb(2) ** -120
        other = span(Fraction(1, 3)) * Fraction(1, 7) - Fraction(1, 9)
        assert decimals.UP.subtract(other.hi, other.lo) < Decimal("1e-38")
        assert decimal.getcontext().prec == 3
