"""Enclosures over a whole box of inputs and parameters: of the error f - m, and of Theorem B.

With R_i = sum over k <= i, k != t of e^{x_i x_k}, r_i = e^{1-s} R_i and g = q (s - 1), the logits
after [SEP] are g / (1 + r_j). For any fixed R (here the middle of all R_j)

    u_j = g / (1 + r_j) - g / (1 + e^{1-s} R) = -g e^{1-s} (R_j - R) / ((1 + r_j) (1 + e^{1-s} R)),
    f - m = (1 - P) sum_j (e^{u_j} - 1) (x_j - m) / sum_j e^{u_j}
          + (sum_{j<t} x_j - (t - 1 + v) m) / (t - 1 + v + Z),

Z = sum_j e^{g / (1 + r_j)}, v = e^{l_t} the weight of [SEP], P = (t - 1 + v) / (t - 1 + v + Z).
However large s is, no difference here is one of nearly equal numbers. As exp increases, each factor
takes its extremes at ends; the first sum is enclosed in `_uneven`.
"""

from fractions import Fraction

from toy.certify.boxes import Box
from toy.certify.intervals import Interval, Poisoned, between, exact, hull, total, union


def error(T: int, t: int, box: Box) -> Interval:
    """f - m over the box: an interval that contains it for every x, s, b, d in there.

    Raises `Poisoned` where no finite enclosure is found, or the query may not be positive.
    """
    x = {i: between(*box[f"x{i}"]) for i in range(1, T + 1) if i != t}
    s, b, d = (between(*box[name]) for name in ("s", "b", "d"))
    after = range(t + 1, T + 1)
    crowd = {
        i: total((x[i].square() if k == i else x[i] * x[k]).exp() for k in x if k <= i)
        for i in after
    }
    scale = (1 - s).exp()
    q = b * x[T] + d * (s - 1) / (1 + scale * crowd[T])
    gain = q * (s - 1)
    if not gain.lo > 0:
        raise Poisoned("the query may not be positive in this box")
    missed = (t - 1) / (t - 1 + (s * (s - 1)).exp())  # 1 - a_t
    sep = (-gain * missed).exp()
    release = total((gain / (1 + scale * crowd[j])).exp() for j in after)
    mean = total(x[j] for j in after) / (T - t)
    others = t - 1 + sep
    leak = (total(x[j] for j in x if j < t) - others * mean) / (others + release)
    if T - t == 1:
        return leak
    reference = union(crowd.values()).middle
    logits = [
        -gain * scale * (crowd[j] - reference) / ((1 + scale * crowd[j]) * (1 + scale * reference))
        for j in after
    ]
    within = 1 / (1 + others / release)  # 1 - P
    lifts = [u.expm1() for u in logits]
    return within * _uneven([x[j] for j in after], lifts) / (T - t + total(lifts)) + leak


def _uneven(x: list[Interval], lifts: list[Interval]) -> Interval:
    """sum_j c_j (x_j - mean x) for c_j in `lifts`, x_j in `x`, each free of the others.

    With x_j = p_j + e_j, p_j the middles and |e_j| <= h_j, and c the mean of c_j, it is
    sum_j c_j (p_j - mean p) + sum_j (c_j - c) e_j. The first is affine in c. The second is at most
    max_j h_j * sum_j |c_j - c|, and at most sum_j h_j |c_j - c|, term by term.
    """
    n = len(x)
    middles = [number.middle for number in x]
    mean = total(middles) / n
    radii = [(number - p).magnitude().hi for number, p in zip(x, middles, strict=True)]
    lean = total(c * (p - mean) for c, p in zip(lifts, middles, strict=True))
    everything = total(lifts)
    single = total(
        hull(h)
        * ((c * (n - 1) - (hull(everything.lo - c.lo, everything.hi - c.hi))) / n).magnitude()
        for h, c in zip(radii, lifts, strict=True)
    )
    spread = min(single.hi, (hull(max(radii)) * _deviation(lifts)).hi)
    return lean + Interval((-hull(spread)).lo, spread)


def _deviation(lifts: list[Interval]) -> Interval:
    """The largest sum_j |c_j - mean c| over c_j in their intervals, enclosed from above.

    sum_j |c_j - c| = 2 max over sets J of sum_{j in J} (c_j - c), and for |J| = k
    sum_J (c_j - c) = sum_J ((1 - k/n) c_j + (k/n) c_j) - (k/n) sum c_j, with the c of J at their
    upper and the others at their lower ends: the best J of k are the k largest summands.
    """
    n = len(lifts)
    floor = total(hull(c.lo) for c in lifts)
    best = exact(0)
    for k in range(1, n):
        part = Fraction(k, n)
        summands = [(1 - part) * hull(c.hi) + part * hull(c.lo) for c in lifts]
        summands.sort(key=lambda v: v.hi, reverse=True)
        reached = total(summands[:k]) - part * floor
        best = union([best, reached])
    return 2 * best


def bound(T: int, t: int, X: Fraction, box: Box) -> Interval:
    """Theorem B over the parameters of the box, whatever its numbers are.

    rho - rho_0 = e^{1-s} ((T - 1) e^{X^2} - 1 - (t - 1) e^{-X^2}), so that
    Delta = q_hi (s - 1) (rho - rho_0) / ((1 + rho) (1 + rho_0)).
    Raises `Poisoned` where q_lo > 0 is not proved for all of them.
    """
    s, b, d = (between(*box[name]) for name in ("s", "b", "d"))
    n = T - t
    squared = exact(X * X)
    scale = (1 - s).exp()
    most, least = (T - 1) * squared.exp(), 1 + (t - 1) * (-squared).exp()
    caught = 1 + scale * most, 1 + scale * least
    tilt = b.magnitude() * X
    q_lo = d * (s - 1) / caught[0] - tilt
    if not q_lo.lo > 0:
        raise Poisoned("q_lo > 0, the hypothesis of Theorem B, is not proved in this cell")
    leak = (2 * t - 1) * X / (t - 1 + n * (q_lo * (s - 1) / caught[0]).exp())
    if n == 1:
        return leak
    q_hi = d * (s - 1) / caught[1] + tilt
    unevenness = q_hi * (s - 1) * scale * (most - least) / (caught[0] * caught[1])
    return 2 * X * (unevenness / 4).tanh() + leak
