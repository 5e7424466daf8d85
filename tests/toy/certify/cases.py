"""Boxes to enclose on, points inside them, and what the literal model says there."""

from fractions import Fraction

import mpmath
import numpy as np

from tests.toy.oracle import literal
from toy.certify.boxes import Statement, halves


def cell(middle, width):
    """An interval around `middle`, `width` of it long."""
    low, high = sorted(Fraction(middle) * (1 + sign * Fraction(width) / 2) for sign in (-1, 1))
    return low, high


def statement(T=6, t=3, X="1", s="12", b="0.3", d="1", width="0.001", fraction="1"):
    return Statement(
        T, t, Fraction(X), cell(s, width), cell(b, width), cell(d, width), Fraction(fraction)
    )


def draw(rng, most=6):
    """A statement and a part of its box, small or whole, that satisfies q_lo > 0."""
    T = int(rng.integers(2, most + 1))
    t = int(rng.integers(1, T))
    s = rng.choice(["3.5", "6", "9", "13", "30", "70"])
    b = rng.choice(["0", "0.01", "0.3", "-0.4"])
    d = rng.choice(["0.6", "1", "7"])
    X = rng.choice(["0.125", "0.5", "1"])
    whole = statement(T, t, X, s, b, d, rng.choice(["0", "0.001", "0.05"]))
    box = whole.box
    for _ in range(rng.choice([0, 2, 12, 40])):
        box = halves(box, str(rng.choice(sorted(box))))[rng.integers(2)]
    return whole, box


def points(rng, box, n):
    """Corners of the box, then points inside, all of them exact floats."""
    found = []
    for k in range(n):
        at = {}
        for axis, (low, high) in box.items():
            share = rng.integers(2) if k < n // 2 else rng.random()
            value = float(low + Fraction(float(share)) * (high - low))
            if not low <= Fraction(value) <= high:  # rounded out of the box: its middle instead
                value = float((low + high) / 2)
            if low <= Fraction(value) <= high:
                at[axis] = value
        if len(at) == len(box):
            found.append(at)
    return found


def truth(T, t, X, at):
    """f - m of the literal model and Theorem B as docs/theory.md prints it, in `mpmath`."""
    x = [at.get(f"x{i}", 0.0) for i in range(1, T + 1)]
    s, b, d, n = mpmath.mpf(at["s"]), mpmath.mpf(at["b"]), mpmath.mpf(at["d"]), T - t
    X = mpmath.mpf(X.numerator) / X.denominator
    rho = (T - 1) * mpmath.exp(1 + X**2 - s)
    rho_0 = (1 + (t - 1) * mpmath.exp(-(X**2))) * mpmath.exp(1 - s)
    q_lo = d * (s - 1) / (1 + rho) - abs(b) * X
    q_hi = d * (s - 1) / (1 + rho_0) + abs(b) * X
    uneven = q_hi * (s - 1) * (rho / (1 + rho) - rho_0 / (1 + rho_0)) if n > 1 else mpmath.mpf(0)
    leak = (2 * t - 1) * X / (t - 1 + n * mpmath.exp(q_lo * (s - 1) / (1 + rho)))
    digits = 70 + int(2 * at["s"])
    return literal(x, t, at["s"], at["b"], at["d"], digits).error, (
        2 * X * mpmath.tanh(uneven / 4) + leak
    )


def number(end):
    """An exact arb number as an `mpmath` one."""
    mantissa, exponent = (int(part) for part in end.man_exp())
    return mpmath.ldexp(mpmath.mpf(mantissa), exponent)


def generator(seed):
    return np.random.default_rng(seed)
