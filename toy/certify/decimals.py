"""The checker's bound of |f - m| / B on a box, in decimal arithmetic rounded outwards.

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
        low = v if v.copy_abs() < SMALL else away.lo
        return Span(low, UP.add(w, UP.multiply(w, w)) if w.copy_abs() < SMALL else away.hi)

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
    if low > high:
        raise Rejected(f"no interval from {low} to {high}")
    return Span(
        DOWN.divide(low.numerator, low.denominator), UP.divide(high.numerator, high.denominator)
    )


def total(parts: Iterable[Span]) -> Span:
    """Their sum."""
    return sum(parts, span(0))


def growth(v: Span) -> Span:
    """(e^v - 1) / v, which increases, and 1 at 0."""

    def at(end: Decimal) -> Span:
        here = Span(end, end)
        lift = here.expm1()
        return span(1) if end == 0 else (lift if end > 0 else -lift).over(here.size())

    return Span(at(v.lo).lo, at(v.hi).hi)


class Case:
    """The scalars of docs/certificates.md on a box, and |f - m| / B from them."""

    def __init__(self, T: int, t: int, X: Fraction, box: Box) -> None:
        """Raises `Rejected` where q_lo > 0, the hypothesis of Theorem B, may fail."""
        self.t, self.n, self.X = t, T - t, X
        self.x = {i: span(*box[f"x{i}"]) for i in range(1, T + 1) if i != t}
        self.ends = [box[f"x{i}"] for i in range(t + 1, T + 1)]
        s, b, d = (span(*box[name]) for name in "sbd")
        last, x, squared = self.x[T], self.x, span(X * X).exp()
        self.e, self.gain, beta = (-s + 1).exp(), d * (s - 1) * (s - 1), b.over(d * (s - 1))
        self.tilt = beta.size() * X  # |beta| X
        self.lean = beta * last + self.tilt  # beta x_T + |beta| X
        if b.lo >= 0 or b.hi <= 0:
            self.lean = beta.size() * ((last if b.lo >= 0 else -last) + X)
        self.rows = [
            total((x[i].size() * x[i].size() if k == i else x[i] * x[k]).exp() for k in x if k <= i)
            for i in range(t + 1, T + 1)
        ]
        self.caught = [span(1).over(self.e * row + 1) for row in self.rows]
        self.most, self.fewest = squared * (T - 1), span(t - 1).over(squared) + 1
        self.a_lo, self.a_hi = (span(1).over(self.e * R + 1) for R in (self.most, self.fewest))
        self.pull, self.p_lo = beta * last + self.caught[-1], self.a_lo - self.tilt
        if not (self.p_lo.lo > 0 and self.pull.lo > 0):
            raise Rejected("q_lo > 0 does not hold in the whole cell")
        missed = span(t - 1).over((s * (s - 1)).exp() + (t - 1))
        self.others = (-(self.gain * self.pull * missed)).exp() + (t - 1)
        self.level = self.gain * self.p_lo * self.a_lo  # L

    def leak(self) -> Decimal:
        """|sum_{j<t} x_j - w m| / (w + Z) over the leak of B, both times e^L."""
        above = [
            self.e * (self.most - row) * a * self.a_lo
            for row, a in zip(self.rows, self.caught, strict=True)
        ]
        surplus = self.lean + above[-1]  # p - p_lo
        excess = total(
            (self.gain * (surplus * a + self.p_lo * up)).exp()
            for a, up in zip(self.caught, above, strict=True)
        )
        contrast = (-self.level).exp()
        before = total(v for j, v in self.x.items() if j < self.t)
        mean = total(v for j, v in self.x.items() if j > self.t).over(self.n)
        whole = (before - self.others * mean).size() * (contrast * (self.t - 1) + self.n)
        return whole.over((excess + self.others * contrast) * ((2 * self.t - 1) * self.X)).hi

    def uneven(self) -> tuple[Decimal, Span]:
        """|sum c_j (x_j - m)| / sum e^{u_j} over 2 X tanh(Delta / 4); that, over X."""
        at = UP.divide(UP.add(min(r.lo for r in self.rows), max(r.hi for r in self.rows)), 2)
        share = span(1).over(self.e * Span(at, at) + 1)  # any number would do for `at`
        tilts = [
            self.pull * (row - Span(at, at)) * a * share
            for row, a in zip(self.rows, self.caught, strict=True)
        ]
        logits = [-(self.gain * self.e * h) for h in tilts]
        lifts = [-(h * growth(u)) for h, u in zip(tilts, logits, strict=True)]
        found = spread(self.ends, lifts).size().over(total(u.exp() for u in logits))
        slope = (self.a_hi + self.tilt) * (self.most - self.fewest) * self.a_lo * self.a_hi
        half = self.gain * self.e * slope * Fraction(1, 2)  # Delta / 2
        # tanh(Delta / 4) = g / (g + 2) with g = e^(Delta / 2) - 1, and tanh(v) / v falls
        far = Span(half.hi, half.hi)
        flat = (growth(far) * 2).over(far.expm1() + 2)
        return found.over(slope * flat * (self.X / 2)).hi, span(2).over(
            span(2).over(half.expm1()) + 1
        )


def ratio(T: int, t: int, X: Fraction, box: Box) -> Decimal:
    """A number that |f - m| / B does not exceed on the box, both at the same s, b, d.

    The mean of the ratios of both parts, weighted with the parts of B; or 2 X / B. Raises
    `Rejected`, `decimal.DecimalException`.
    """
    case = Case(T, t, X, box)
    leak = case.leak()
    if case.n == 1:
        return leak
    uneven, part = case.uneven()
    other = span(2 * t - 1).over(case.level.exp() * case.n + (t - 1))
    weight = span(1).over(other.over(part) + 1)
    low, high = Span(leak, leak), Span(uneven, uneven)
    return min((low + weight * (high - low)).hi, span(2).over(part + other).hi)


def spread(x: list[Ends], c: list[Span]) -> Span:
    """sum c_j (x_j - mean x), which is sum c_j (p_j - mean p) + sum (c_j - mean c) (x_j - p_j).

    Once with every p_j the middle of all x, once with p_j the middle of x_j; the narrower holds.
    """
    n = len(x)
    middle = [(low + high) / 2 for low, high in x]
    mean, reach = sum(middle, Fraction(0)) / n, [(high - low) / 2 for low, high in x]
    level = total(c_j * (p - mean) for c_j, p in zip(c, middle, strict=True))
    floor, single, double = total(Span(v.lo, v.lo) for v in c), span(0), Decimal(0)
    for j, (h, own) in enumerate(zip(reach, c, strict=True)):
        rest = total(v for k, v in enumerate(c) if k != j)
        single = single + ((own * (n - 1) - rest).over(n)).size() * h
        part = Fraction(j, n)  # the largest sum of c_i - mean c over a set of j of them
        gains = sorted((Span(v.hi, v.hi) * (1 - part) + Span(v.lo, v.lo) * part).hi for v in c)
        double = max(double, (total(Span(g, g) for g in gains[n - j :]) - floor * part).hi)
    deviation = Span(double, double) * 2  # the largest sum |c_j - mean c|
    around = min(single.hi, (deviation * max(reach)).hi)
    inner = level + Span(around.copy_negate(), around)
    half = (max(high for _, high in x) - min(low for low, _ in x)) / 2
    outer = (deviation * half).hi
    return Span(max(outer.copy_negate(), inner.lo), min(outer, inner.hi))
