"""Several separators: identical ones release after the first, numbered ones after the last.

Identical, at t_1 < ... < t_K, with the theorem's weights: f tends to the mean of all numbers after
t_1. Row i sees c_i <= K of them and A_i = 1 / (1 + r_i / c_i), hence Theorem B's proof with
rho = (T-K) e^{1+X^2-s}, rho_0 = (1 + (t_1 - 1) e^{-X^2}) e^{1-s} / K.

Numbered, s_1 < ... < s_K: every position e of segment k reads the mean of its own segment so far.
With sigma_k = sum_l softmax(s_1..s_k)_l (s_l - 1), the tag of segment k is sigma_k / (1 + r),

    rho = (e-k) e^{1+X^2} / S_k,  rho_0 = (1 + (t_k - k) e^{-X^2}) e / S_k,  S_k = sum_l e^{s_l},
    L = q_lo (sigma_k / (1 + rho) - sigma_{k-1}),  Delta = q_hi sigma_k (1/(1+rho_0) - 1/(1+rho)),
    |f_e - m_e| <= 2 X tanh(Delta/4) + X leak(t_k - k, k, L).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy.errors import NoSegment, Refused
from toy.inputs import check_magnitude, check_numbers, check_scale
from toy.statements import cases, literal, release
from toy.statements.cases import over
from toy.statements.claim import Claim


class Marked(NamedTuple):
    """A sequence with separators at `seps` (from 1, rising) whose scales are `scales`."""

    T: int
    seps: tuple[int, ...]
    scales: tuple[float, ...]
    X: float
    b: float = 0.0
    d: float = 1.0


def _check(at: Marked) -> None:
    seps, rising = at.seps, list(at.seps) == sorted(set(at.seps))
    if not seps or not rising or seps[0] < 1 or seps[-1] >= at.T or len(at.scales) != len(seps):
        raise NoSegment(
            f"separators at {list(seps)} of T = {at.T} with {len(at.scales)} scales: "
            "give rising positions from 1, a number after the last, and a scale for each"
        )
    check_magnitude(at.X)
    check_numbers(b=at.b, d=at.d, scales=float(np.sum(at.scales)))
    check_scale(min(at.scales))


def identical_bound(at: Marked) -> float:
    """|f - mean of all numbers after the first separator| <= this; the scales are one and the same.

    Raises `NoSegment`, `NoMagnitude`, `NotFinite`, `NonPositiveQuery`, `ScaleTooSmall`, and
    `Refused` where the scales differ.
    """
    _check(at)
    if len(set(at.scales)) > 1:
        raise Refused(f"scales {list(at.scales)}: identical separators share one scale")
    count, gain, X2 = len(at.seps), at.scales[0] - 1, at.X**2
    crowds = release.Crowds(
        (at.T - count) * np.exp(X2 - gain),
        (1 + (at.seps[0] - 1) * np.exp(-X2)) * np.exp(-gain) / count,
    )
    n = at.T - at.seps[0] - (count - 1)
    rates = release.rates(crowds, at.X, gain, at.b, at.d)
    return float(release.error_bound(at.X, n, at.seps[0] - 1, count, *rates))


def mean_tag(scales: Sequence[float]) -> float:
    """sigma = sum_l softmax(s)_l (s_l - 1), and 0 for no separators."""
    s = np.asarray(scales, dtype=np.float64)
    if not len(s):
        return 0.0
    weights = np.exp(s - s.max())
    return float((weights * (s - 1)).sum() / weights.sum())


def numbered_bound(at: Marked, end: int) -> float:
    """|f_e - mean of its own segment up to e| <= this, for a number at `end`; the scales rise.

    Raises `NoSegment`, `NoMagnitude`, `NotFinite`, `NonPositiveQuery`, `ScaleTooSmall`, and
    `Refused` where a scale is below the one before it.
    """
    _check(at)
    if list(at.scales) != sorted(at.scales):
        raise Refused(f"scales {list(at.scales)}: every separator's must exceed the one before it")
    k = sum(sep < end for sep in at.seps)
    if k == 0 or end in at.seps or end > at.T:
        raise NoSegment(f"position {end} is not a number after a separator")
    own, X2 = at.scales[:k], at.X**2
    total = np.exp(-np.logaddexp.reduce(own))
    earlier = at.seps[k - 1] - k  # numbers before this segment
    crowds = release.Crowds(
        (end - k) * np.exp(1 + X2) * total, (1 + earlier * np.exp(-X2)) * np.e * total
    )
    tag, below = mean_tag(own), mean_tag(own[:-1])
    low = at.d * tag / (1 + crowds.rho) - abs(at.b) * at.X
    high = at.d * tag / (1 + crowds.rho_0) + abs(at.b) * at.X
    above = tag / (1 + crowds.rho) - below
    contrast = (low if above > 0 else high) * above
    uneven = release.rates(crowds, at.X, tag, at.b, at.d).unevenness
    n = end - at.seps[k - 1]
    return float(release.error_bound(at.X, n, earlier, k, uneven, contrast))


def embed(at: Marked, x: Float[np.ndarray, "case seq"]) -> Float[np.ndarray, "case seq 2"]:
    """e_i = [x_i, -1] and [0, -s_k] at the separators."""
    e = np.stack([x, -np.ones_like(x)], axis=-1)
    for sep, scale in zip(at.seps, at.scales, strict=True):
        e[:, sep - 1] = [0.0, -scale]
    return e


def _draw(rng: np.random.Generator, count: int, step: float) -> Marked:
    T = int(rng.integers(2 * count + 1, cases.LONGEST + 1))
    seps = tuple((1 + np.sort(rng.choice(T - 1, count, replace=False))).tolist())
    X = cases.magnitude(rng)
    first = 1 + X * X + rng.uniform(2, 18)
    scales = tuple((first + step * np.arange(count)).tolist())
    # Half with logits of a few units: what leaks then decides, whatever the crowds.
    leaky = rng.uniform(0.5, 15) / (first - 1) ** 2
    d = float(rng.choice([np.exp(rng.normal()), leaky]))
    slack = d * (first - 1) / (1 + T * np.exp(1 + X * X - first)) / X
    return Marked(T, seps, scales, X, float(rng.uniform(-0.9, 0.9) * slack * rng.integers(2)), d)


def _pass(at: Marked, x: Float[np.ndarray, "case seq"]) -> literal.Pass:
    return literal.run(literal.theorem_model(0.0, at.b, at.d), embed(at, x))


def identical(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """|f - mean after the first of up to five identical separators| over its bound."""
    found = []
    for size in cases.groups(n):
        at = _draw(rng, int(rng.integers(2, 6)), 0.0)
        x = cases.inputs(rng, at.T, at.seps[0], at.X, size)
        numbers = [i for i in range(at.seps[0], at.T) if i + 1 not in at.seps]
        seen = _pass(at, x)
        error = np.abs(seen.output[:, -1, 0] - x[:, numbers].mean(axis=1))
        room = seen.rounding_output + 4 * at.T * literal.UNIT * at.X
        found.append(over(error, identical_bound(at), room))
    return np.concatenate(found)


def numbered(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """|f_e - running mean of its segment| over its bound, the worst e of each pass."""
    found = []
    for size in cases.groups(n):
        at = _draw(rng, int(rng.integers(2, 5)), float(np.exp(rng.uniform(-1.5, 1.5))))
        x = cases.inputs(rng, at.T, at.seps[rng.integers(len(at.seps))], at.X, size)
        seen, each = _pass(at, x), []
        room = seen.rounding_output + 4 * at.T * literal.UNIT * at.X
        for end in range(at.seps[0] + 1, at.T + 1):
            if end not in at.seps:
                start = max(sep for sep in at.seps if sep < end)
                error = np.abs(seen.output[:, end - 1, 0] - x[:, start:end].mean(axis=1))
                each.append(over(error, numbered_bound(at, end), room))
        found.append(np.max(each, axis=0))
    return np.concatenate(found)


CLAIMS = {
    "identical separators": Claim(
        "|f - mean after the first| <= 2X tanh(Delta/4) + X leak(t_1 - 1, K, L)",
        "Identical separators",
        identical,
    ),
    "numbered separators": Claim(
        "|f_e - mean of e's own segment up to e| <= 2X tanh(Delta/4) + X leak(t_k - k, k, L)",
        "Numbered separators",
        numbered,
    ),
}
