"""How far f can be from the mean, for every x in [-X, X]^T at once (proofs: docs/theory.md).

    rho   = (T - 1) e^{1 + X^2 - s},  rho_0 = (1 + (t - 1) e^{-X^2}) e^{1 - s}
    q_lo  = d (s - 1) / (1 + rho) - |b| X,  q_hi = d (s - 1) / (1 + rho_0) + |b| X
    Delta = q_hi (s - 1) (rho / (1 + rho) - rho_0 / (1 + rho_0)), and 0 if n = T - t = 1
    L     = q_lo (s - 1) / (1 + rho)

rho_0 <= r_i <= rho, so Delta bounds how uneven the logits after [SEP] are, and L how far they
stand above the others. Both need the guaranteed query q_lo to be positive.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy.errors import NonPositiveQuery
from toy.inputs import check_magnitude, check_numbers, check_scale, check_segment
from toy.logs import ROUNDING, log_sigmoid, quiet


class Interval(NamedTuple):
    """lower <= the quantity <= upper, at every position."""

    lower: Float[np.ndarray, " seq"]
    upper: Float[np.ndarray, " seq"]


class _Rates(NamedTuple):
    unevenness: float  # Delta
    contrast: float  # e^-L


def _log_rho(seq: int, X: float, s_tag: float) -> float:
    return float(np.log(seq - 1.0)) + 1 + X * X - s_tag


def _log_rho_0(t: int, X: float, s_tag: float) -> float:
    return float(np.log1p((t - 1) * np.exp(-X * X))) + 1 - s_tag


def least_sink(T: int, X: float, s_tag: float) -> float:
    """1 / (1 + rho): no token after [SEP] pays less attention to it."""
    return float(np.exp(log_sigmoid(-_log_rho(T, X, s_tag))))


def _log_margin(seq: int, X: float, s_tag: float, b: float, d: float) -> float:
    """log(d (s - 1) / (1 + rho)) - log(|b| X): positive exactly where q_lo is."""
    if b == 0:
        return np.inf
    pull = np.log(d) + np.log(s_tag - 1) + log_sigmoid(-_log_rho(seq, X, s_tag))
    return float(pull - np.log(abs(b)) - np.log(X))


def _check(seq: int, t: int, X: float, b: float, d: float) -> None:
    check_segment(seq, t)
    check_magnitude(X)
    check_numbers(b=b, d=d)
    if d <= 0:
        raise NonPositiveQuery(
            f"d = {d:.6g}: the tag of the last token must raise the query: give d > 0"
        )


def _rates(seq: int, t: int, X: float, s_tag: float, b: float, d: float) -> _Rates:
    """Delta and e^-L. Raises `Refused` by name unless q_lo > 0."""
    _check(seq, t, X, b, d)
    check_scale(s_tag)
    with quiet():
        margin = _log_margin(seq, X, s_tag, b, d)
        if margin <= 0:
            raise NonPositiveQuery(
                f"s_tag = {s_tag:.6g} cannot hold the query positive for b = {b:.6g}, d = {d:.6g}, "
                f"X = {X:.6g}, T = {seq}: "
                f"take s_tag >= {smallest_s_tag(seq, t, X, b=b, d=d):.17g}"
            )
        log_gain = np.log(s_tag - 1)
        log_low, log_high = (  # of the least and the greatest sink mass, 1/(1+rho), 1/(1+rho_0)
            log_sigmoid(-_log_rho(seq, X, s_tag)),
            log_sigmoid(-_log_rho_0(t, X, s_tag)),
        )
        log_q_lo = np.log(d) + log_gain + log_low + np.log(-np.expm1(-margin))
        contrast = float(np.exp(-np.exp(log_q_lo + log_gain + log_low)))
        if seq - t == 1:
            return _Rates(0.0, contrast)
        log_q_hi = np.logaddexp(np.log(d) + log_gain + log_high, np.log(abs(b)) + np.log(X))
        # (rho - rho_0) e^{s - 1 - X^2}, a sum of positive terms
        drop = -np.expm1(-X * X)
        gap = (seq - 1) * drop + np.exp(-X * X) * (seq - t - 1 + (t - 1) * drop)
        log_uneven = log_q_hi + log_gain + log_low + log_high + (1 + X * X - s_tag) + np.log(gap)
        return _Rates(float(np.exp(log_uneven)), contrast)


def error_bound(T: int, t: int, X: float, *, s_tag: float, b: float = 0.0, d: float = 1.0) -> float:
    """|f - m| <= 2 X tanh(Delta / 4) + (2t - 1) X / (t - 1 + n e^L)  (Theorem B).

    The first term is unevenness after [SEP], the second what leaks to the tokens before it.
    |f - m| <= 2 X always, so that a value above 2 X says nothing.
    Raises `NoSegment`, `NoMagnitude`, `NotFinite`, `ScaleTooSmall`, `NonPositiveQuery`.

    Examples:
        >>> [round(error_bound(5, 3, 1.0, s_tag=s), 4) for s in (8.0, 12.0, 16.0)]
        [0.2008, 0.0092, 0.0003]
    """
    uneven, contrast = _rates(T, t, X, s_tag, b, d)
    leak = (2 * t - 1) * contrast / ((t - 1) * contrast + T - t)
    return float(X * (2 * np.tanh(uneven / 4) + leak))


def relative_rounding(X: float, *, s_tag: float, b: float = 0.0) -> float:
    """How far, relatively, float64 may leave `error_bound` and `residual` from their exact values.

    The query is a difference of parts as large as |b| X + q, so that a logit q (s - 1) carries
    the rounding of |b| X (s - 1) besides its own, and the leak is e to the logit.
    """
    return ROUNDING + 64 * float(np.finfo(np.float64).eps) * abs(b) * X * (s_tag - 1)


def smallest_s_tag(T: int, t: int, X: float, *, b: float = 0.0, d: float = 1.0) -> float:
    """The root s > 1 of d (s - 1) = |b| X (1 + rho(s)), rounded up; 1.0 where b = 0.

    Every greater s has q_lo > 0: the left side grows with s and the right side falls. Where
    b = 0 every s > 1 does. Raises `NoSegment`, `NoMagnitude`, `NotFinite`, `NonPositiveQuery`.

    Examples:
        >>> round(smallest_s_tag(32, 16, 1.0, b=5.0, d=1.0), 3)
        7.022
    """
    _check(T, t, X, b, d)
    if b == 0:
        return 1.0
    low, high = 1.0, 2.0
    with quiet():
        while _log_margin(T, X, high, b, d) <= 0:
            low, high = high, 2 * high
        check_numbers(smallest_s_tag=high)
        while low < (middle := (low + high) / 2) < high:
            if _log_margin(T, X, middle, b, d) > 0:
                high = middle
            else:
                low = middle
    return high


def sink_bounds(T: int, t: int, X: float, *, s_tag: float) -> Interval:
    """1 / (1 + (i-1) e^{1+X^2-s}) <= A1[i, t] <= 1 / (1 + (1 + (i-2) e^{-X^2}) e^{1-s}), i > t.

    Before [SEP] both ends are 0; at [SEP] both are its attention to itself, whatever x is.
    Raises `NoSegment`, `NoMagnitude`, `NotFinite`, `ScaleTooSmall`.
    """
    check_segment(T, t)
    check_magnitude(X)
    check_scale(s_tag)
    lower, upper = np.zeros(T), np.zeros(T)
    i = np.arange(t + 1, T + 1)
    with quiet():
        itself = np.exp(log_sigmoid(np.float64(s_tag) * (s_tag - 1) - np.log(t - 1.0)))
        lower[t - 1] = upper[t - 1] = itself
        lower[t:] = np.exp(log_sigmoid(s_tag - 1 - X * X - np.log(i - 1.0)))
        upper[t:] = np.exp(log_sigmoid(s_tag - 1 - np.log1p((i - 2) * np.exp(-X * X))))
    return Interval(lower, upper)


def tag_bounds(T: int, t: int, X: float, *, s_tag: float) -> Interval:
    """(s - 1) times `sink_bounds` after [SEP]; 0 before; at [SEP], -(s-1)(t-1)e^{-s(s-1)} .. 0.

    Raises `NoSegment`, `NoMagnitude`, `NotFinite`, `ScaleTooSmall`.
    """
    caught = sink_bounds(T, t, X, s_tag=s_tag)
    lower, upper = ((s_tag - 1) * end for end in caught)
    with quiet():
        lower[t - 1] = -(s_tag - 1) * (t - 1) * np.exp(-np.float64(s_tag) * (s_tag - 1))
    upper[t - 1] = 0.0
    return Interval(lower, upper)


def readout_bound(
    T: int, t: int, X: float, *, s_tag: float, b: float = 0.0, d: float = 1.0
) -> float:
    """TV(A2[T, .], uniform after [SEP]) <= P + (1 - P) tanh(Delta / 4), P = t / (t + n e^L).

    Raises as `error_bound`.
    """
    uneven, contrast = _rates(T, t, X, s_tag, b, d)
    leak = t * contrast / (t * contrast + T - t)
    return float(leak + (1 - leak) * np.tanh(uneven / 4))
