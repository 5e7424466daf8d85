"""The checker's enclosures of f - m and of Theorem B, in decimal arithmetic rounded outwards.

The formulas are those of docs/certificates.md. `decimal` rounds + - * / as it is told to, and exp
to the nearest. Python's standard library is all that is used, and nothing of the prover.
"""

import decimal
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

DIGITS = 40
TRAPS = [decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow, decimal.Underflow]
DOWN, UP = (  # a trap is raised: neither NaN nor infinity nor a lost exponential can go on
    decimal.Context(DIGITS, way, decimal.MIN_EMIN, decimal.MAX_EMAX, traps=TRAPS)
    for way in (decimal.ROUND_FLOOR, decimal.ROUND_CEILING)
)
SMALL = Decimal("1e-15")
Ends = tuple[Fraction, Fraction]
Box = dict[str, Ends]


class Rejected(ValueError):
    """Nothing is proved; the message says why."""


@lru_cache(2**16)
def _exp(value: Decimal) -> Decimal:
    return DOWN.exp(value)  # to the nearest, in every context


@dataclass(frozen=True)
class Span:
    """lo <= the value <= hi. Decimal's own operators would round as the caller's context does."""

    lo: Decimal
    hi: Decimal

    def __add__(self, other: "Span | int | Fraction") -> "Span":
        o = span(other)
        return Span(DOWN.add(self.lo, o.lo), UP.add(self.hi, o.hi))

    def __neg__(self) -> "Span":
        return Span(self.hi.copy_negate(), self.lo.copy_negate())

    def __sub__(self, other: "Span | int | Fraction") -> "Span":
        return self + -span(other)

    def __mul__(self, other: "Span | int | Fraction") -> "Span":
        o = span(other)
        pairs = [(v, w) for v in (self.lo, self.hi) for w in (o.lo, o.hi)]
        return Span(min(DOWN.multiply(*p) for p in pairs), max(UP.multiply(*p) for p in pairs))

    def over(self, other: "Span | int") -> "Span":
        """self / other, for a positive other."""
        o = span(other)
        if not o.lo > 0:
            raise Rejected("division by what may not be positive")
        return self * Span(DOWN.divide(1, o.hi), UP.divide(1, o.lo))

    def exp(self) -> "Span":
        return Span(DOWN.next_minus(_exp(self.lo)), UP.next_plus(_exp(self.hi)))

    def expm1(self) -> "Span":
        """e^v - 1; near 0 by v <= e^v - 1 <= v + v^2, as the difference would lose its digits."""
        away, v, w = self.exp() + -1, self.lo, self.hi
        low = v if abs(v) < SMALL else away.lo
        return Span(low, UP.add(w, UP.multiply(w, w)) if abs(w) < SMALL else away.hi)

    def size(self) -> "Span":
        """|v|."""
        if self.lo >= 0 or self.hi <= 0:
            return self if self.lo >= 0 else -self
        return Span(Decimal(0), max(self.lo.copy_negate(), self.hi))


def span(low: "Span | int | Fraction", high: Fraction | None = None) -> Span:
    """A rational number, or the interval between two, rounded outwards."""
    if isinstance(low, Span):
        return low
    high = Fraction(low) if high is None else high
    return Span(
        DOWN.divide(low.numerator, low.denominator), UP.divide(high.numerator, high.denominator)
    )


def total(parts: Iterable[Span]) -> Span:
    """Their sum."""
    return sum(parts, span(0))


def error(T: int, t: int, box: Box) -> Span:
    """f - m on the box."""
    x = {i: span(*box[f"x{i}"]) for i in range(1, T + 1) if i != t}
    s, b, d = (span(*box[name]) for name in "sbd")
    scale, n, after = (span(1) - s).exp(), T - t, range(t + 1, T + 1)
    square = {i: x[i].size() * x[i].size() for i in after}
    crowd = [
        total((square[i] if k == i else x[i] * x[k]).exp() for k in x if k <= i) for i in after
    ]
    seen = [scale * R + 1 for R in crowd]  # 1 / a_j
    gain = (b * x[T] + (d * (s - 1)).over(seen[-1])) * (s - 1)
    if not gain.lo > 0:
        raise Rejected("the query may not be positive")
    missed = span(t - 1).over((s * (s - 1)).exp() + (t - 1))
    others = (-(gain * missed)).exp() + (t - 1)
    weight = total(gain.over(r).exp() for r in seen)
    mean = total(x[j] for j in after).over(n)
    leak = (total(x[j] for j in x if j < t) - others * mean).over(others + weight)
    if n == 1:
        return leak
    at = UP.divide(UP.add(min(R.lo for R in crowd), max(R.hi for R in crowd)), 2)
    R0 = Span(at, at)  # any number would do
    lift = [
        (-(gain * scale * (R - R0)).over(r * (scale * R0 + 1))).expm1()
        for R, r in zip(crowd, seen, strict=True)
    ]
    within = span(1).over(others.over(weight) + 1)
    return within * uneven([box[f"x{j}"] for j in after], lift).over(total(lift) + n) + leak


def uneven(x: list[Ends], c: list[Span]) -> Span:
    """sum c_j (x_j - mean x): affine in c at the middles of x, around it sum (c_j - mean c) e_j."""
    n = len(x)
    middle = [(low + high) / 2 for low, high in x]
    mean, reach = sum(middle, Fraction(0)) / n, [(high - low) / 2 for low, high in x]
    level = total(c_j * (p - mean) for c_j, p in zip(c, middle, strict=True))
    floor, single, together = total(Span(v.lo, v.lo) for v in c), span(0), Decimal(0)
    for j, (h, own) in enumerate(zip(reach, c, strict=True)):
        rest = total(v for k, v in enumerate(c) if k != j)
        single = single + ((own * (n - 1) - rest).over(n)).size() * h
        part = Fraction(j, n)  # the largest sum of c_i - mean c over a set of j of them
        gains = sorted((Span(v.hi, v.hi) * (1 - part) + Span(v.lo, v.lo) * part).hi for v in c)
        best = total(Span(g, g) for g in gains[n - j :]) - floor * part
        together = max(together, best.hi)
    around = min(single.hi, (Span(together, together) * (2 * max(reach))).hi)
    return level + Span(around.copy_negate(), around)


def bound(T: int, t: int, X: Fraction, box: Box) -> Span:
    """Theorem B on the cell."""
    s, b, d = (span(*box[name]) for name in "sbd")
    scale, n, grown = (span(1) - s).exp(), T - t, span(X * X).exp()
    most, least = grown * (T - 1), span(t - 1).over(grown) + 1
    high, low = scale * most + 1, scale * least + 1
    pull, tilt = d * (s - 1), b.size() * X
    q_lo = pull.over(high) - tilt
    if not q_lo.lo > 0:
        raise Rejected("q_lo > 0 does not hold in the whole cell")
    leak = span((2 * t - 1) * X).over((q_lo * (s - 1)).over(high).exp() * n + (t - 1))
    if n == 1:
        return leak
    half = (((pull.over(low) + tilt) * (s - 1) * scale * (most - least)).over(high * low)).over(2)
    grow = half.expm1()  # tanh(Delta / 4) = g / (g + 2) with g = e^(Delta / 2) - 1
    if not grow.lo > 0:
        raise Rejected("the bound is lost in rounding")
    return span(2 * X).over(span(2).over(grow) + 1) + leak
