"""Enclosures over a whole box of inputs and parameters of f - m and its parts.

With R_i = sum over k <= i, k != t of e^{x_i x_k}, e = e^{1-s}, a_i = 1 / (1 + e R_i), and

    beta = b / (d (s - 1)),  p = beta x_T + a_T = q / (d (s - 1)),  G = d (s - 1)^2,

the logits after [SEP] are G p a_j. For any fixed R (here the middle of all R_j)

    h_j = (R_j - R) a_j / (1 + e R),   u_j = G p a_j - G p / (1 + e R) = -G e p h_j,
    f - m = (1 - P) sum_j (e^{u_j} - 1) (x_j - m) / sum_j e^{u_j}
          + (sum_{j<t} x_j - w m) / (w + Z),

Z = sum_j e^{G p a_j}, w = t - 1 + e^{l_t}, P = w / (w + Z). However large s is, no difference here
is one of nearly equal numbers. As exp increases, each factor takes its extremes at ends; the first
sum is enclosed in `uneven`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from toy.certify.boxes import Box
from toy.certify.intervals import Interval, Poisoned, between, exact, hull, total, union


@dataclass(frozen=True)
class Model:
    """The scalars above for the x, s, b, d of a box; rows are those after [SEP]."""

    x: Mapping[int, Interval]
    small: Interval  # e
    gain: Interval  # G
    beta: Interval
    crowd: list[Interval]  # R_j
    caught: list[Interval]  # a_j
    pull: Interval  # p
    others: Interval  # w


def model_of(T: int, t: int, box: Box) -> Model:
    """The scalars on the box. Raises `Poisoned` where the query may not be positive."""
    x = {i: between(*box[f"x{i}"]) for i in range(1, T + 1) if i != t}
    s, b, d = (between(*box[name]) for name in ("s", "b", "d"))
    small, gain, beta = (1 - s).exp(), d * (s - 1).square(), b / (d * (s - 1))
    crowd = [
        total((x[i].square() if k == i else x[i] * x[k]).exp() for k in x if k <= i)
        for i in range(t + 1, T + 1)
    ]
    caught = [1 / (1 + small * row) for row in crowd]
    pull = beta * x[T] + caught[-1]
    if not pull.lo > 0:
        raise Poisoned("the query may not be positive in this box")
    missed = (t - 1) / (t - 1 + (s * (s - 1)).exp())  # 1 - a_t
    return Model(x, small, gain, beta, crowd, caught, pull, t - 1 + (-gain * pull * missed).exp())


def tilts(model: Model) -> list[Interval]:
    """p h_j for every row after [SEP]."""
    reference = union(model.crowd).middle
    at = 1 / (1 + model.small * reference)
    rows = zip(model.crowd, model.caught, strict=True)
    return [model.pull * (crowd - reference) * caught * at for crowd, caught in rows]


def error(T: int, t: int, box: Box) -> Interval:
    """f - m over the box: an interval that contains it for every x, s, b, d in there.

    Raises `Poisoned` where no finite enclosure is found, or the query may not be positive.
    """
    model = model_of(T, t, box)
    after = [model.x[j] for j in range(t + 1, T + 1)]
    release = total((model.gain * model.pull * a).exp() for a in model.caught)
    leak = leaked(t, model) / (model.others + release)
    if T - t == 1:
        return leak
    lifts = [(-model.gain * model.small * tilt).expm1() for tilt in tilts(model)]
    within = 1 / (1 + model.others / release)  # 1 - P
    return within * uneven(after, lifts) / (T - t + total(lifts)) + leak


def leaked(t: int, model: Model) -> Interval:
    """sum_{j<t} x_j - w m."""
    mean = total(v for j, v in model.x.items() if j > t) / len(model.crowd)
    return total(v for j, v in model.x.items() if j < t) - model.others * mean


def uneven(x: list[Interval], lifts: list[Interval]) -> Interval:
    """sum_j c_j (x_j - mean x) for c_j in `lifts`, x_j in `x`, each free of the others.

    For any p_j, with c the mean of the c_j, it is
    sum_j c_j (p_j - mean p) + sum_j (c_j - c) (x_j - p_j), the first affine in c. With all p_j the
    middle of [min x, max x], the first is 0 and the second at most half of that length times
    sum_j |c_j - c|. With p_j the middle of x_j, and h_j its radius, the second is at most
    max_j h_j * sum_j |c_j - c|, and at most sum_j h_j |c_j - c|. The narrower result holds.
    """
    n = len(x)
    deviation = _deviation(lifts)
    everything, whole = total(lifts), union(x)
    outer = ((hull(whole.hi) - hull(whole.lo)) / 2 * deviation).hi
    middles = [number.middle for number in x]
    mean = total(middles) / n
    radii = [(number - p).magnitude().hi for number, p in zip(x, middles, strict=True)]
    lean = total(c * (p - mean) for c, p in zip(lifts, middles, strict=True))
    single = total(
        hull(h) * ((c * (n - 1) - hull(everything.lo - c.lo, everything.hi - c.hi)) / n).magnitude()
        for h, c in zip(radii, lifts, strict=True)
    )
    spread = min(single.hi, (hull(max(radii)) * deviation).hi)
    inner = lean + Interval(-spread, spread)
    return Interval(max(-outer, inner.lo), min(outer, inner.hi))


def _deviation(lifts: list[Interval]) -> Interval:
    """The largest sum_j |c_j - mean c| over c_j in their intervals, enclosed from above.

    sum_j |c_j - c| = 2 max over sets J of sum_{j in J} (c_j - c), and for |J| = k
    sum_J (c_j - c) = sum_J ((1 - k/n) c_j + (k/n) c_j) - (k/n) sum c_j, with the first c_j of J at
    their upper ends and all others at their lower: the best J of k are the k largest summands.
    """
    n = len(lifts)
    floor = total(hull(c.lo) for c in lifts)
    best = exact(0)
    for k in range(1, n):
        part = Fraction(k, n)
        summands = [(1 - part) * hull(c.hi) + part * hull(c.lo) for c in lifts]
        summands.sort(key=lambda v: v.hi, reverse=True)
        best = union([best, total(summands[:k]) - part * floor])
    return 2 * best
