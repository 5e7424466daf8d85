"""Theorem B for W_V1 = diag(0, -w), any w > 0 and d of either sign: only the query's sign matters.

Tags are w - 1 before [SEP], w - 1 + w (s-1) a_i after it. With rho and rho_0 of Theorem B,

    tau_- = w - 1 + w (s-1) / (1 + rho),  tau_+ = w - 1 + w (s-1) / (1 + rho_0),
    q_lo = min(d tau_-, d tau_+) - |b| X > 0,  q_hi = max(d tau_-, d tau_+) + |b| X,
    Delta = q_hi w (s-1) (rho / (1 + rho) - rho_0 / (1 + rho_0)),  L = q_lo w (s-1) / (1 + rho),
    L' = q (s-1) (1 - w rho / (1 + rho)), q = q_lo where that is positive and q_hi elsewhere:

    |f - m| <= 2 X tanh(Delta/4) + X leak(t-1, 1, L)                           for w <= 1,
    |f - m| <= 2 X tanh(Delta/4) + X (2(t-1) / (t-1 + n e^L) + 1 / (1 + n e^{L'}))  for w > 1.

So neither tags that grow nor d > 0 are needed: w = c/(s-1) keeps every tag but [SEP]'s bounded
(C3), and c < 1 with d < 0 leaves the tokens after [SEP] the smaller ones (C4).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy.errors import NonPositiveQuery
from toy.inputs import check_magnitude, check_numbers, check_scale, check_segment
from toy.logs import quiet
from toy.statements import release


class Gauge(NamedTuple):
    """One sequence shape and the weights of family F that Theorem B extends to."""

    T: int
    t: int
    X: float
    s_tag: float
    w: float
    b: float = 0.0
    d: float = 1.0


class Ends(NamedTuple):
    """Between what the crowds, the tags and the queries lie."""

    crowds: release.Crowds
    tag_low: float
    tag_high: float
    query_low: float
    query_high: float


def ends(at: Gauge) -> Ends:
    """The intervals above. Raises `NoSegment`, `NoMagnitude`, `NotFinite`, `ScaleTooSmall`."""
    check_segment(at.T, at.t)
    check_magnitude(at.X)
    check_scale(at.s_tag)
    check_numbers(w=at.w, b=at.b, d=at.d)
    crowds = release.crowds(at.T, at.t, at.X**2, at.s_tag - 1)
    tags = [at.w - 1 + at.w * (at.s_tag - 1) / (1 + r) for r in crowds]
    pulls = [at.d * tag for tag in tags]
    low, high = tags
    slack = abs(at.b) * at.X
    return Ends(crowds, low, high, min(pulls) - slack, max(pulls) + slack)


def error_bound(at: Gauge) -> float:
    """The bound above on |f - m| for every x in [-X, X]^T.

    Raises as `ends`, and `NonPositiveQuery` unless w > 0 and q_lo > 0.
    """
    crowds, _, _, low, high = ends(at)
    rho = crowds.rho
    if at.w <= 0 or low <= 0:
        raise NonPositiveQuery(
            f"w = {at.w:.6g}, guaranteed query {low:.6g}: both must be positive: "
            "raise s_tag, or give d the sign of the tag"
        )
    n, gain = at.T - at.t, at.w * (at.s_tag - 1)
    uneven = high * gain * crowds.spread
    contrast = low * gain / (1 + rho)
    if at.w <= 1:
        return float(release.error_bound(at.X, n, at.t - 1, 1, uneven, contrast))
    room = (at.s_tag - 1) * (1 - at.w * rho / (1 + rho))
    own = (low if room > 0 else high) * room
    known = release.error_bound(at.X, n, at.t - 1, 0, uneven, contrast)
    return float(known + at.X * release.leak(n, 0, 1, own))


def largest_tag(at: Gauge) -> Float[np.ndarray, " seq"]:
    """max |tau_j| over [-X, X]^T before and after [SEP]; [SEP]'s own is s - w + w (s-1)(1 - a_t).

    |w - 1| before it, max |tau_-|, |tau_+| after it. Raises as `ends`.
    """
    found = ends(at)
    i = np.arange(1, at.T + 1)
    after = max(abs(found.tag_low), abs(found.tag_high))
    with quiet():
        crowd = (at.t - 1) * np.exp(-at.s_tag * (at.s_tag - 1))
    own = abs(at.w - at.s_tag + at.w * (at.s_tag - 1) / (1 + crowd))
    return np.where(i < at.t, abs(at.w - 1), np.where(i > at.t, after, own))
