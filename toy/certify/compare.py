"""|f - m| over B on a whole box, both at the same parameters: what a certificate is made of.

In the scalars of `enclose`, with R_max = (T - 1) e^{X^2}, R_min = 1 + (t - 1) e^{-X^2} and the sink
masses a_lo = 1 / (1 + e R_max), a_hi = 1 / (1 + e R_min), Theorem B has
p_lo = a_lo - |beta| X, L = G p_lo a_lo, Delta = G e (a_hi + |beta| X) (R_max - R_min) a_lo a_hi.
"""

from dataclasses import dataclass
from fractions import Fraction

from flint import arb

from toy.certify.boxes import Box
from toy.certify.enclose import Model, leaked, model_of, tilts, uneven
from toy.certify.intervals import Interval, Poisoned, between, exact, hull, total, union


@dataclass(frozen=True)
class Bound:
    """Theorem B in the scalars above: 2 X tanh(Delta / 4) + (2t - 1) X / (t - 1 + n e^L)."""

    least: Interval  # 1 / (1 + rho)
    p_lo: Interval
    slope: Interval  # Delta / (G e)
    log_contrast: Interval  # L
    uneven: Interval
    leak: Interval


def theorem_of(T: int, t: int, X: Fraction, box: Box) -> Bound:
    """rho - rho_0 = e ((T - 1) e^{X^2} - 1 - (t - 1) e^{-X^2}). Raises `Poisoned`, see `bound`."""
    s, b, d = (between(*box[name]) for name in ("s", "b", "d"))
    n, squared = T - t, exact(X * X)
    small, gain, tilt = (1 - s).exp(), d * (s - 1).square(), (b / (d * (s - 1))).magnitude() * X
    most, fewest = (T - 1) * squared.exp(), 1 + (t - 1) * (-squared).exp()
    least, greatest = 1 / (1 + small * most), 1 / (1 + small * fewest)
    p_lo = least - tilt
    if not p_lo.lo > 0:
        raise Poisoned("q_lo > 0, the hypothesis of Theorem B, is not proved in this cell")
    log_contrast = gain * p_lo * least
    leak = (2 * t - 1) * X / (t - 1 + n * log_contrast.exp())
    slope = (greatest + tilt) * (most - fewest) * least * greatest if n > 1 else exact(0)
    uneven = 2 * X * (gain * small * slope / 4).tanh()
    return Bound(least, p_lo, slope, log_contrast, uneven, leak)


def bound(T: int, t: int, X: Fraction, box: Box) -> Interval:
    """Theorem B over the parameters of the box, whatever its numbers are.

    Raises `Poisoned` where q_lo > 0 is not proved for all of them.
    """
    theorem = theorem_of(T, t, X, box)
    return theorem.uneven + theorem.leak


def ratio(T: int, t: int, X: Fraction, box: Box) -> Interval:
    """|f - m| / B over the box, B at the same s, b, d: from 0 to a number it does not exceed.

    Both have an uneven part and a leak, whose sizes fall by many orders of magnitude along s. Each
    part is divided by its counterpart first, with what they share (G e, or e^L) cancelled by hand;
    the ratio is a mean of the two, weighted by the parts of B. Where B is of no use, |f - m| <= 2 X
    is. Raises `Poisoned`.
    """
    model, theorem = model_of(T, t, box), theorem_of(T, t, X, box)
    leak = _leak_ratio(T, t, X, box, model, theorem)
    if T - t == 1:
        return Interval(arb(0), leak.hi)
    unevenness = _uneven_ratio(T, t, X, model, theorem)
    share = 1 / (1 + theorem.leak / theorem.uneven)
    both = hull(leak.hi) + share * (hull(unevenness.hi) - hull(leak.hi))
    trivial = 2 * X / (theorem.uneven + theorem.leak)
    return Interval(arb(0), min(both.hi, trivial.hi))


def _uneven_ratio(T: int, t: int, X: Fraction, model: Model, theorem: Bound) -> Interval:
    """|sum_j c_j (x_j - m)| / sum_j e^{u_j} over 2 X tanh(Delta / 4), both divided by G e.

    (e^v - 1) / v increases with v, tanh(v) / v falls with |v|.
    """
    leans = tilts(model)
    strength = model.gain * model.small
    logits = [-strength * lean for lean in leans]
    lifts = [-lean * _growth(u) for lean, u in zip(leans, logits, strict=True)]
    after = [model.x[j] for j in range(t + 1, T + 1)]
    weights = total(u.exp() for u in logits)
    quarter = hull((strength * theorem.slope / 4).hi)
    return (uneven(after, lifts) / weights).magnitude() / (
        theorem.slope * X / 2 * (quarter.tanh() / quarter)
    )


def _growth(v: Interval) -> Interval:
    """(e^v - 1) / v, and 1 at 0."""
    ends = [exact(1) if end == 0 else hull(end).expm1() / hull(end) for end in (v.lo, v.hi)]
    return union(ends)


def _leak_ratio(T: int, t: int, X: Fraction, box: Box, model: Model, theorem: Bound) -> Interval:
    """|sum_{j<t} x_j - w m| / (w + Z) over (2t - 1) X / (t - 1 + n e^L), both times e^L.

    G p a_j - L = G ((p - p_lo) a_j + p_lo (a_j - 1/(1 + rho))), where
    p - p_lo = (beta x_T + |beta| X) + (a_T - 1/(1 + rho)): differences of R, again.
    """
    most = (T - 1) * exact(X * X).exp()
    above = [
        model.small * (most - crowd) * caught * theorem.least
        for crowd, caught in zip(model.crowd, model.caught, strict=True)
    ]
    b, last = between(*box["b"]), model.x[T]
    lean = model.beta.magnitude() * (X - last if b.hi <= 0 else X + last)
    if b.lo < 0 < b.hi:
        lean = model.beta * last + model.beta.magnitude() * X
    surplus = lean + above[-1]
    excess = total(
        (model.gain * (surplus * a + theorem.p_lo * up)).exp()
        for a, up in zip(model.caught, above, strict=True)
    )
    contrast = (-theorem.log_contrast).exp()
    part = leaked(t, model).magnitude() / ((2 * t - 1) * X)
    return part * (T - t + (t - 1) * contrast) / (excess + model.others * contrast)
