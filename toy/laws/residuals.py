"""The exact f - m of many sequences of unequal length at once, at any (s, b, d, w).

As `toy.theorem.residual`, with W_V1 = diag(0, -w) besides. Relative to a number before [SEP] the
logits of layer 2 are Q a_j after [SEP] and q (s - 1) (w a_t - 1) at [SEP], where

    q = b x_T + d (w - 1 + w (s - 1) a_T),    Q = q w (s - 1).

All that is quadratic in T depends on x alone and is computed once, in `crowds`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from toy.inputs import check_numbers, check_scale
from toy.laws.tails import Sequences
from toy.logs import quiet


class Crowds(NamedTuple):
    """What layer 1 and the target need of the sequences, whatever the weights are."""

    log_crowd: Float[np.ndarray, "case seq"]  # log sum_{k<=i, k!=t} e^{x_i x_k}; after [SEP]
    least: Float[np.ndarray, " case"]  # over the tokens after [SEP]
    most: Float[np.ndarray, " case"]
    of_last: Float[np.ndarray, " case"]
    away: Float[np.ndarray, "case seq"]  # x_j - m after [SEP], else 0
    after: Bool[np.ndarray, "case seq"]
    before: Float[np.ndarray, " case"]  # sum over j < t of x_j - m
    mean: Float[np.ndarray, " case"]  # m
    x_last: Float[np.ndarray, " case"]
    t: Float[np.ndarray, " case"]
    n: Float[np.ndarray, " case"]
    weight: Float[np.ndarray, " case"]


def _log_crowd(sequences: Sequences, rows: slice) -> Float[np.ndarray, "case seq"]:
    x, t, last = sequences.x[rows], sequences.t[rows, None], sequences.last[rows, None]
    i = np.arange(1, x.shape[1] + 1)
    number = (i <= last) & (i != t)
    scores = np.where(
        np.tri(len(i), dtype=bool) & number[:, None, :], x[:, :, None] * x[:, None, :], -np.inf
    )
    own = np.where(number, x**2, 0.0)
    top = np.maximum(scores.max(axis=-1), own)
    with quiet():
        return np.log(np.exp(scores - top[..., None]).sum(axis=-1)) + top


def crowds(sequences: Sequences) -> Crowds:
    """Everything about the sequences that no weight changes; O(T^2) a sequence."""
    cases, seq = sequences.x.shape
    t, last = sequences.t[:, None], sequences.last[:, None]
    i = np.arange(1, seq + 1)
    after = (i > t) & (i <= last)
    blocks = [slice(at, at + 512) for at in range(0, cases, 512)]  # 4 MB of scores at a time
    log_crowd = np.concatenate([_log_crowd(sequences, rows) for rows in blocks])
    n = (last - t).astype(np.float64)
    # Centred at the last number first: equal numbers then deviate by exactly 0.
    x_last = np.take_along_axis(sequences.x, last - 1, axis=1)
    away = np.where(after, sequences.x - x_last, 0.0)
    shift = away.sum(axis=1, keepdims=True) / n
    mean = x_last + shift
    return Crowds(
        log_crowd=np.where(after, log_crowd, 0.0),
        least=np.where(after, log_crowd, np.inf).min(axis=1),
        most=np.where(after, log_crowd, -np.inf).max(axis=1),
        of_last=np.take_along_axis(log_crowd, last - 1, axis=1)[:, 0],
        away=np.where(after, away - shift, 0.0),
        after=after,
        before=np.where(i < t, sequences.x - mean, 0.0).sum(axis=1),
        mean=mean[:, 0],
        x_last=x_last[:, 0],
        t=t[:, 0].astype(np.float64),
        n=n[:, 0],
        weight=sequences.weight,
    )


def _sigmoid(v: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    return 1 / (1 + np.exp(-v))


def residuals(
    seen: Crowds, *, s_tag: float, b: float = 0.0, d: float = 1.0, w: float = 1.0
) -> Float[np.ndarray, " case"]:
    """f - m of every sequence, relatively accurate where f and m share every bit.

    a_i - a_j = a_i (1 - a_j) (1 - r_i / r_j), so that equal-looking tags still differ.
    Raises `ScaleTooSmall`, `NotFinite`.
    """
    check_scale(s_tag)
    check_numbers(b=b, d=d, w=w)
    with quiet():
        crowd = seen.log_crowd + 1 - s_tag  # log r_i
        least, most = seen.least + 1 - s_tag, seen.most + 1 - s_tag
        a_last = _sigmoid(s_tag - 1 - seen.of_last)
        query = b * seen.x_last + d * (w - 1 + w * (s_tag - 1) * a_last)
        pull = query * w * (s_tag - 1)
        up = pull >= 0
        best = np.where(up, least, most)
        low, high = np.minimum(crowd, best[:, None]), np.maximum(crowd, best[:, None])
        gap = _sigmoid(-low) * _sigmoid(high) * -np.expm1(low - high)
        within = -np.abs(pull)[:, None] * gap
        top = pull * _sigmoid(-best)
        missed = _sigmoid(np.log(seen.t - 1) - np.float64(s_tag) * (s_tag - 1))  # 1 - a_t
        sep = query * (s_tag - 1) * (w - 1 - w * missed)
        peak = np.maximum(np.maximum(top, sep), 0.0)
        release, leak, own = np.exp(top - peak), np.exp(-peak), np.exp(sep - peak)
        loss = np.where(seen.after, np.expm1(within), 0.0)
        uneven = (loss * seen.away).sum(axis=1)
        total = release * (seen.n + loss.sum(axis=1)) + leak * (seen.t - 1) + own
        return (release * uneven + leak * seen.before - own * seen.mean) / total


def squared_errors(
    seen: Crowds, *, s_tag: float, b: float = 0.0, d: float = 1.0, w: float = 1.0
) -> Float[np.ndarray, " case"]:
    """weight (f - m)^2: their plain mean estimates E[(f - m)^2] under p.

    Raises as `residuals`.
    """
    return seen.weight * residuals(seen, s_tag=s_tag, b=b, d=d, w=w) ** 2
