"""Family F, in closed form: every function that the architecture can compute without s_num.

    s_num = 0,  W_V1 = [[0, 0], [0, -w]],  W_V2 = [1, 0]^T,  any real s, w and any M = W_Q2 W_K2^T

The theorem's weights are w = 1, M = [[0, b], [0, d]]. With r_i = sum over numbers k <= i of
e^{1 - s + x_i x_k} and c_i separators up to i (identical ones, at `seps`, counted from 1),

    A_i = c_i / (c_i + r_i),   tau_i = w - 1 + w (s - 1) A_i,   logit_j = beta x_j + q tau_j,
    beta = x_T M_11 + tau_T M_21,   q = x_T M_12 + tau_T M_22,   G = q w (s - 1).

A separator reads itself: 1 - A = N e^{s - s^2} / (c + N e^{s - s^2}) with N numbers before it.
Weights are arrays, one entry a case, and broadcast against the inputs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from toy.errors import NoSegment
from toy.inputs import check_segment
from toy.logs import log_sigmoid, quiet


class Theta(NamedTuple):
    """The six reals of family F, for each case."""

    s_tag: Float[np.ndarray, " case"]
    w: Float[np.ndarray, " case"]
    M: Float[np.ndarray, "case 2 2"]


class Reading(NamedTuple):
    """What the last row of layer 2 sees, relative to a number before [SEP] that is 0."""

    tag_T: Float[np.ndarray, "*batch case"]
    q: Float[np.ndarray, "*batch case"]
    beta: Float[np.ndarray, "*batch case"]
    gain: Float[np.ndarray, "*batch case"]  # G
    sink: Float[np.ndarray, "*batch case seq"]  # A_i
    logits: Float[np.ndarray, "*batch case seq"]
    log_odds: Float[np.ndarray, "*batch case seq"]  # of A_i; -inf before the first separator


def _separators(seq: int, seps: Sequence[int]) -> Bool[np.ndarray, " seq"]:
    """Where they stand. Raises `NoSegment` unless they rise and a number follows the last."""
    if not seps or list(seps) != sorted(set(seps)) or seps[0] < 1:
        raise NoSegment(f"separators at {list(seps)}: give positions from 1, rising")
    check_segment(seq, seps[-1])
    return np.isin(np.arange(1, seq + 1), seps)


def _log_odds(
    x: Float[np.ndarray, "*batch seq"],
    is_sep: Bool[np.ndarray, " seq"],
    s_tag: Float[np.ndarray, " case"],
) -> Float[np.ndarray, "*batch case seq"]:
    """log(A_i / (1 - A_i)): log c_i - log r_i for a number, s^2 - s + log c - log N for [SEP]."""
    sees = np.tri(len(is_sep), dtype=bool) & ~is_sep
    sees[is_sep] = True  # no use; keeps the maximum finite
    scores = np.where(sees, x[..., :, None] * x[..., None, :], -np.inf)
    top = scores.max(axis=-1, keepdims=True)
    crowd = np.log(np.exp(scores - top).sum(axis=-1)) + top[..., 0]
    seen, others = np.log(np.cumsum(is_sep)), np.log(np.cumsum(~is_sep))
    s = s_tag[:, None]
    number = seen + s - 1 - crowd[..., None, :]
    return np.where(is_sep, seen + s * (s - 1) - others, number)


def read(theta: Theta, x: Float[np.ndarray, "*batch seq"], seps: Sequence[int]) -> Reading:
    """Layer 1 and the last row of layer 2, at every input (leading axes) and every theta.

    Raises `NoSegment`.
    """
    is_sep = _separators(x.shape[-1], seps)
    x = np.where(is_sep, 0.0, x)
    s, w, M = theta
    with quiet():
        odds = _log_odds(x, is_sep, s)
        sink = np.exp(log_sigmoid(odds))
        last = x[..., -1:]
        tag_T = w - 1 + w * (s - 1) * sink[..., -1]
        beta = last * M[:, 0, 0] + tag_T * M[:, 1, 0]
        q = last * M[:, 0, 1] + tag_T * M[:, 1, 1]
        gain = q * w * (s - 1)
        number = beta[..., None] * x[..., None, :] + gain[..., None] * sink
        own = (q * (s - 1))[..., None] * (w[:, None] * sink - 1)
        return Reading(tag_T, q, beta, gain, sink, np.where(is_sep, own, number), odds)


def residual(
    theta: Theta,
    x: Float[np.ndarray, "*batch seq"],
    seps: Sequence[int],
    *,
    after: int | None = None,
) -> Float[np.ndarray, "*batch case"]:
    """f - m, m the mean of the numbers after `after` (the last separator), relatively accurate.

    With S those numbers and any number k of S, (f - m) sum_j e^{l_j} is
    e^{l_k} sum_S expm1(l_j - l_k) (x_j - m) + the other tokens' e^{l_j} (x_j - m); the first
    differences are beta (x_j - x_k) + G (A_j - A_k), the last bracket from log-odds, so that sinks
    which agree to the last bit still differ. Raises `NoSegment`.
    """
    is_sep = _separators(x.shape[-1], seps)
    seen = read(theta, x, seps)
    x = np.where(is_sep, 0.0, x)
    i = np.arange(1, x.shape[-1] + 1)
    target = ~is_sep & (i > (seps[-1] if after is None else after))
    first = x[..., target][..., :1]
    away = x - first
    mean = away[..., target].mean(axis=-1, keepdims=True)
    away = (away - mean)[..., None, :]  # x_j - m; -m at [SEP], whose x is 0
    with quiet():
        best = np.where(target, seen.logits, -np.inf).argmax(axis=-1)[..., None]
        wide = np.broadcast_to(x[..., None, :], seen.logits.shape)
        reference, odds = (np.take_along_axis(v, best, axis=-1) for v in (wide, seen.log_odds))
        low, high = np.minimum(odds, seen.log_odds), np.maximum(odds, seen.log_odds)
        apart = np.exp(log_sigmoid(high) + log_sigmoid(-low)) * -np.expm1(low - high)
        apart = np.where(seen.log_odds >= odds, apart, -apart)
        within = seen.beta[..., None] * (wide - reference) + seen.gain[..., None] * apart
        peak = seen.logits.max(axis=-1, keepdims=True)
        weight = np.exp(seen.logits - peak)
        base = np.take_along_axis(weight, best, axis=-1)
        uneven = base * np.where(target, np.expm1(np.where(target, within, 0.0)) * away, 0.0)
        others = np.where(target, 0.0, weight * away)
        return (uneven + others).sum(axis=-1) / weight.sum(axis=-1)
