"""Intervals with arb end points: [lo, hi] contains every value that the formula takes.

Balls (midpoint and radius) lose wide boxes: the ball around [e^100, e^140] contains 0. Here the two
ends are numbers of their own, each rounded outwards, so that positive stays positive. An interval
is finite by construction: NaN or infinity raises `Poisoned` where it would arise, and cannot
reach a comparison, which NaN passes by answering "no" to both questions.

Source: Moore, "Interval Analysis" (1966); Johansson, "Arb" (2017), arXiv 1611.02831.
"""

import decimal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Union

from flint import arb, ctx, fmpq

from toy.errors import Refused

BITS = 128

Number = Union[int, Fraction, "Interval"]


class Poisoned(Refused):
    """An interval without finite ends: nothing can be proved with it."""


@contextmanager
def precision() -> Iterator[None]:
    """`BITS` bits inside the block, whatever the caller's arithmetic is set to."""
    with ctx.workprec(BITS):
        yield


@dataclass(frozen=True, slots=True)
class Interval:
    """lo <= the value <= hi, both exact, finite arb numbers. Build it with `hull` or `exact`."""

    lo: arb
    hi: arb

    def __add__(self, other: Number) -> "Interval":
        other = exact(other)
        return hull(self.lo + other.lo, self.hi + other.hi)

    __radd__ = __add__

    def __neg__(self) -> "Interval":
        return Interval(-self.hi, -self.lo)

    def __sub__(self, other: Number) -> "Interval":
        return self + -exact(other)

    def __rsub__(self, other: Number) -> "Interval":
        return exact(other) + -self

    def __mul__(self, other: Number) -> "Interval":
        other = exact(other)
        if self.lo >= 0 and other.lo >= 0:
            return hull(self.lo * other.lo, self.hi * other.hi)
        return union(hull(a * b) for a in (self.lo, self.hi) for b in (other.lo, other.hi))

    __rmul__ = __mul__

    def __truediv__(self, other: Number) -> "Interval":
        other = exact(other)
        if other.lo <= 0 <= other.hi:
            raise Poisoned("division by an interval that contains 0")
        return self * hull(1 / other.hi, 1 / other.lo)

    def __rtruediv__(self, other: Number) -> "Interval":
        return exact(other) / self

    def square(self) -> "Interval":
        """[min v^2, max v^2]: never negative, unlike the product of two intervals."""
        size = self.magnitude()
        return size * size

    def exp(self) -> "Interval":
        """[e^lo, e^hi]."""
        return hull(self.lo.exp(), self.hi.exp())

    def expm1(self) -> "Interval":
        """[e^lo - 1, e^hi - 1], relatively accurate near 0."""
        return hull(self.lo.expm1(), self.hi.expm1())

    def tanh(self) -> "Interval":
        """[tanh lo, tanh hi]."""
        return hull(self.lo.tanh(), self.hi.tanh())

    def magnitude(self) -> "Interval":
        """[min |v|, max |v|]."""
        if self.lo >= 0:
            return self
        if self.hi <= 0:
            return -self
        return Interval(arb(0), max(-self.lo, self.hi))

    @property
    def middle(self) -> "Interval":
        """A number inside, as an interval of one point."""
        point = ((self.lo + self.hi) / 2).mid()
        return hull(point)


def hull(low: arb, high: arb | None = None) -> Interval:
    """The interval from `low` to `high`, rounded outwards; `high` may be left out for one value.

    Raises `Poisoned` where an end is NaN or infinite, or the ends are out of order.
    """
    lo, hi = low.lower(), (low if high is None else high).upper()
    # A comparison with NaN is false: only this order of words refuses it.
    if not (lo.is_finite() and hi.is_finite() and lo <= hi):
        raise Poisoned(f"no finite enclosure: ends {lo} and {hi}")
    return Interval(lo, hi)


def exact(number: Number) -> Interval:
    """A rational number, enclosed; an interval is handed through."""
    if isinstance(number, Interval):
        return number
    return hull(arb(fmpq(number.numerator, number.denominator)))


def shown(end: arb, *, up: bool) -> str:
    """An exact, finite number in 6 digits, rounded up or down; however small, it is not 0.

    A float would show e^-1000 as 0, an error that is nowhere 0 as none.
    """
    mantissa, exponent = (int(part) for part in end.man_exp())
    whole = mantissa * Fraction(2) ** exponent
    way = decimal.ROUND_CEILING if up else decimal.ROUND_FLOOR
    digits = decimal.Context(6, way, decimal.MIN_EMIN, decimal.MAX_EMAX)
    return f"{digits.divide(whole.numerator, whole.denominator):g}"


def between(low: Fraction, high: Fraction) -> Interval:
    """[low, high], rounded outwards. Raises `Poisoned` where the ends are out of order."""
    if low > high:
        raise Poisoned(f"no interval from {low} to {high}")
    return Interval(exact(low).lo, exact(high).hi)


def union(parts: Iterable[Interval]) -> Interval:
    """The smallest interval that holds them all."""
    parts = list(parts)
    return Interval(min(p.lo for p in parts), max(p.hi for p in parts))


def total(parts: Iterable[Interval]) -> Interval:
    """Their sum; 0 for none."""
    result = exact(0)
    for part in parts:
        result = result + part
    return result
