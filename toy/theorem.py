"""The two-layer averaging transformer as exact mathematics, in float64.

Zhang, Khan, Papyan, "Attention Sinks and Outlier Features: A 'Catch, Tag, and Release' Mechanism
for Embeddings" (2025), arXiv 2502.00919, Section 4. [SEP] stands at position t (from 1) of T,
numbers |x_i| <= X everywhere else; s is `s_tag`; M = W_Q2 W_K2^T = [[0, b], [0, d]]. The weights
of the theorem turn both layers into scalars, without any O(.):

    r_i = sum over k <= i, k != t of exp(1 - s + x_i x_k)
    catch    a_i = A1[i, t] = 1 / (1 + r_i) after [SEP], 0 before it,
             1 - a_t = (t - 1) / (t - 1 + exp(s (s - 1)))
    tag      tau_i = (s - 1) a_i after [SEP], 0 before it, tau_t = -(s - 1) (1 - a_t)
    release  q = b x_T + d tau_T,  A2[T, j] = softmax_j(q tau_j)
             f = sum_j A2[T, j] x_j, with x_t := 0

Everything is carried as logarithms and differences, because tags agree to the last bit long
before the output has converged: a float64 model then reports an error that is too small.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy.bounds import error_bound, smallest_s_tag
from toy.inputs import check_numbers, check_scale, numbers_of
from toy.logs import log_sigmoid, quiet

__all__ = ["error_bound", "output", "readout", "residual", "sink", "smallest_s_tag", "tag"]

_UNREACHED = 1e300
"""Logits are cut here: their exponentials are 0 or win outright, and inf - inf is avoided."""


def _log_crowd(x: Float[np.ndarray, "*batch seq"], t: int) -> Float[np.ndarray, "*batch n"]:
    """log sum over k <= i, k != t of exp(x_i x_k), for i > t: what competes with [SEP] in row i."""
    seq = x.shape[-1]
    seen = np.tri(seq, dtype=bool)[t:]
    seen[:, t - 1] = False
    scores = np.where(seen, x[..., t:, None] * x[..., None, :], -np.inf)
    top = scores.max(axis=-1, keepdims=True)
    return np.log(np.exp(scores - top).sum(axis=-1)) + top[..., 0]


def _log_miss(t: int, s_tag: float) -> Float[np.ndarray, ""]:
    """log(1 - a_t): how little [SEP] looks elsewhere than at itself, whatever x is."""
    return log_sigmoid(np.log(t - 1.0) - np.float64(s_tag) * (s_tag - 1))


def sink(
    x: Float[np.ndarray, "*batch seq"], t: int, s_tag: float
) -> Float[np.ndarray, "*batch seq"]:
    """a_i = A1[i, t], the attention that row i pays to [SEP] in layer 1.

    Raises `NoSegment`, `NotFinite`, `ScaleTooSmall`.

    Examples:
        >>> sink(np.array([0.3, -0.7, 0.0, 0.5, -0.2]), 3, 12.0).round(4).tolist()
        [0.0, 0.0, 1.0, 0.9999, 0.9999]
    """
    check_scale(s_tag)
    x = numbers_of(x, t)
    caught = np.zeros_like(x)
    with quiet():
        caught[..., t - 1] = np.exp(log_sigmoid(np.float64(s_tag) * (s_tag - 1) - np.log(t - 1.0)))
        caught[..., t:] = np.exp(log_sigmoid(s_tag - 1 - _log_crowd(x, t)))
    return caught


def tag(
    x: Float[np.ndarray, "*batch seq"], t: int, s_tag: float
) -> Float[np.ndarray, "*batch seq"]:
    """tau_i, the second coordinate of the stream after layer 1.

    Raises `NoSegment`, `NotFinite`, `ScaleTooSmall`.
    """
    tags = (s_tag - 1) * sink(x, t, s_tag)
    with quiet():
        tags[..., t - 1] = -(s_tag - 1) * np.exp(_log_miss(t, s_tag))
    return tags


class _Logits(NamedTuple):
    """Layer 2's logits q tau_j in the last row; those of the numbers before [SEP] are 0."""

    within: Float[np.ndarray, "*batch n"]  # after [SEP], less their maximum: never positive
    top: Float[np.ndarray, "*batch 1"]  # that maximum
    sep: Float[np.ndarray, "*batch 1"]


def _logits(
    x: Float[np.ndarray, "*batch seq"], t: int, s_tag: float, b: float, d: float
) -> _Logits:
    """q tau_j with a_j - a_i = a_j a_i (r_i - r_j), so that equal-looking tags still differ."""
    crowd = _log_crowd(x, t)
    shift = 1 - s_tag  # log r_i = shift + crowd_i
    pull = b * x[..., -1:] / (s_tag - 1) + d * np.exp(log_sigmoid(-shift - crowd[..., -1:]))
    log_gain = np.log(np.abs(pull)) + 2 * np.log(s_tag - 1)  # |q| (s - 1)
    least, most = crowd.min(axis=-1, keepdims=True), crowd.max(axis=-1, keepdims=True)
    best = np.where(pull >= 0, least, most)
    low, high = np.minimum(crowd, best), np.maximum(crowd, best)
    log_gap = log_sigmoid(shift + high) + log_sigmoid(-shift - low) + np.log(-np.expm1(low - high))
    top = np.sign(pull) * np.exp(log_gain + log_sigmoid(-shift - best))
    sep = -np.sign(pull) * np.exp(log_gain + _log_miss(t, s_tag))
    return _Logits(
        -np.exp(log_gain + log_gap),
        np.clip(top, -_UNREACHED, _UNREACHED),
        np.clip(sep, -_UNREACHED, _UNREACHED),
    )


def readout(
    x: Float[np.ndarray, "*batch seq"], t: int, *, s_tag: float, b: float = 0.0, d: float = 1.0
) -> Float[np.ndarray, "*batch seq"]:
    """A2[T, .], the row of layer 2 that is read out; it sums to one.

    Raises `NoSegment`, `NotFinite`, `ScaleTooSmall`.
    """
    check_scale(s_tag)
    check_numbers(b=b, d=d)
    x = numbers_of(x, t)
    with quiet():
        logits = _logits(x, t, s_tag, b, d)
        peak = np.maximum(np.maximum(logits.top, logits.sep), 0.0)
        weights = np.empty_like(x)
        weights[..., : t - 1] = np.exp(-peak)
        weights[..., t - 1 : t] = np.exp(logits.sep - peak)
        weights[..., t:] = np.exp(logits.top - peak + logits.within)
    return weights / weights.sum(axis=-1, keepdims=True)


def output(
    x: Float[np.ndarray, "*batch seq"], t: int, *, s_tag: float, b: float = 0.0, d: float = 1.0
) -> Float[np.ndarray, "*batch"]:
    """f = sum_j A2[T, j] x_j, with x_t := 0; exact for every sign of the query.

    Raises `NoSegment`, `NotFinite`, `ScaleTooSmall`.

    Examples:
        >>> x = np.array([0.3, -0.7, 0.0, 0.5, -0.2])  # [SEP] is the third
        >>> [round(output(x, 3, s_tag=s).item(), 3) for s in (4.0, 8.0, 12.0)]  # the mean: 0.15
        [0.191, 0.157, 0.15]
    """
    weights = readout(x, t, s_tag=s_tag, b=b, d=d)
    return np.asarray((weights * numbers_of(x, t)).sum(axis=-1))


def residual(
    x: Float[np.ndarray, "*batch seq"], t: int, *, s_tag: float, b: float = 0.0, d: float = 1.0
) -> Float[np.ndarray, "*batch"]:
    """f - m, m the mean after [SEP], relatively accurate also where f and m share every bit.

    As sum_{j>t} (x_j - m) = 0, with l the logits and c any shift,
    (f - m) sum_j e^{l_j - c} = e^{top - c} sum_{j>t} expm1(l_j - top) (x_j - m)
                              + e^{-c} sum_{j<t} (x_j - m) - e^{l_t - c} m.
    Logits differ through log r, whose own rounding, some 1e-15 (X^2 + log T), is what is left of
    the error where the r of two rows agree to as many digits.
    Raises `NoSegment`, `NotFinite`, `ScaleTooSmall`.
    """
    check_scale(s_tag)
    check_numbers(b=b, d=d)
    x = numbers_of(x, t)
    # Centred at one of the numbers first: equal numbers then deviate by exactly 0.
    away = x[..., t:] - x[..., t : t + 1]
    mean = x[..., t] + away.mean(axis=-1)
    away = away - away.mean(axis=-1, keepdims=True)
    with quiet():
        logits = _logits(x, t, s_tag, b, d)
        peak = np.maximum(np.maximum(logits.top, logits.sep), 0.0)
        release, leak, sep = (
            np.exp(v - peak)[..., 0] for v in (logits.top, np.zeros_like(peak), logits.sep)
        )
        uneven = (np.expm1(logits.within) * away).sum(axis=-1)
        before = (x[..., : t - 1] - mean[..., None]).sum(axis=-1)
        total = release * np.exp(logits.within).sum(axis=-1) + leak * (t - 1) + sep
        return np.asarray((release * uneven + leak * before - sep * mean) / total)
