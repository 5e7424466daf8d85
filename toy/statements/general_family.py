"""Beyond family F: any W_V1, W_V2 and s_num. There averaging needs neither sink nor tag (C5).

With e_i = [x_i, -1], e_t = [s_num, -s], s = s_tag, r_i = sum over numbers k <= i of
e^{1 - s + x_i x_k - s_num x_i}, c_i the mean of these x_k under these weights, the whole family is

    a_i = 1 / (1 + r_i) after [SEP], 0 before it; row t is softmax(s_num x_k + s, s_num^2 + s^2),
    h_i = e_i + ((1 - a_i) [c_i, -1] + a_i [s_num, -s]) W_V1,
    f   = sum_j softmax_j(h_T M h_j^T) h_j W_V2.

C5 takes s_num = 0, W_V1 = diag(-w, 0), M = [[0, 0], [0, G / (s-1)]], W_V2 = [V, 0]^T with
D = T - 1 + e^G, V = D / n, w = e^{-G} (t - 1 + e^{s (s-1)}), and any real s but 1. Layer 2 gives
every number 1/D and [SEP] the rest, whatever x is. [SEP] has written -w (1 - a_t) times the mean
before it, and V restores the scale: all numbers are added and those before [SEP] subtracted,

    f - m = -(w/n) sum_{i != t} (1 - a_i) c_i,  |f - m| <= (w/n) (T - 1) max |x_i|  on R^T.

With s = 0 [SEP] is the zero vector, a_i < 1 / (1 + e), a number's tag stays -1 and no entry of the
stream exceeds max(1, (1 + w) max |x_i|). The price is |W_V2| of order 1/eps, an attention near 1
to [SEP] in layer 2, and weights that serve one (T, t) only.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy.errors import Refused
from toy.inputs import check_magnitude, check_numbers, check_segment, numbers_of
from toy.logs import log_sigmoid, quiet
from toy.statements import cases
from toy.transformer import Weights


class General(NamedTuple):
    """The twelve reals that the architecture has, for each case; M = W_Q2 W_K2^T."""

    s_num: Float[np.ndarray, " case"]
    s_tag: Float[np.ndarray, " case"]
    W_V1: Float[np.ndarray, "case 2 2"]
    M: Float[np.ndarray, "case 2 2"]
    W_V2: Float[np.ndarray, "case 2"]


class Seen(NamedTuple):
    """Layer 1's sink and stream, the row of layer 2 that is read out, and the output."""

    sink: Float[np.ndarray, "batch case seq"]
    stream: Float[np.ndarray, "batch case seq 2"]
    readout: Float[np.ndarray, "batch case seq"]
    output: Float[np.ndarray, "batch case"]


class _Crowd(NamedTuple):
    log_size: Float[np.ndarray, "batch seq"]  # log sum over numbers k <= i of e^{x_i x_k}
    mean: Float[np.ndarray, "batch seq"]  # c_i


def _crowd(x: Float[np.ndarray, "batch seq"], t: int) -> _Crowd:
    sees = np.tri(x.shape[1], dtype=bool)
    sees[:, t - 1] = False
    sees[t - 1, t - 1] = True  # no use; keeps the row of [SEP] from being empty
    scores = np.where(sees, x[:, :, None] * x[:, None, :], -np.inf)
    top = scores.max(axis=-1, keepdims=True)
    raised = np.exp(scores - top)
    total = raised.sum(axis=-1)
    return _Crowd(np.log(total) + top[..., 0], (raised * x[:, None, :]).sum(axis=-1) / total)


def _softmax(scores: Float[np.ndarray, "*any seq"]) -> Float[np.ndarray, "*any seq"]:
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def read(theta: General, x: Float[np.ndarray, "batch seq"], t: int) -> Seen:
    """The closed form above, at every input and every theta. Raises `NoSegment`, `NotFinite`."""
    x = numbers_of(x, t)
    is_sep = np.arange(1, x.shape[1] + 1) == t
    before = np.arange(1, x.shape[1] + 1) < t
    crowd = _crowd(x, t)
    s_num, s_tag = theta.s_num[:, None], theta.s_tag[:, None]
    with quiet():
        score = s_num * x[:, None, :] + s_tag
        caught = np.exp(log_sigmoid(score - 1 - crowd.log_size[:, None, :]))
        own_scores = np.where(before, score, np.where(is_sep, s_num**2 + s_tag**2, -np.inf))
        own = _softmax(own_scores)
    sink = np.where(is_sep, own[..., t - 1 : t], np.where(before, 0.0, caught))
    missed = own[..., : t - 1].sum(axis=-1, keepdims=True)
    apart = np.exp(log_sigmoid(crowd.log_size[:, None, :] + 1 - score))  # 1 - a_i, also when tiny
    apart = np.where(is_sep, missed, np.where(before, 1.0, apart))
    numbers = apart * crowd.mean[:, None, :]
    numbers[..., t - 1] = (own * x[:, None, :])[..., : t - 1].sum(axis=-1)
    mixed = np.stack([numbers + sink * s_num, -apart - sink * s_tag], axis=-1)
    shape = sink.shape
    embedding = np.stack(
        [
            np.broadcast_to(np.where(is_sep, s_num, x[:, None, :]), shape),
            np.broadcast_to(np.where(is_sep, -s_tag, -1.0), shape),
        ],
        axis=-1,
    )
    stream = embedding + mixed @ theta.W_V1
    query = np.einsum("bci,cij->bcj", stream[..., -1, :], theta.M)
    readout = _softmax(np.einsum("bcj,bckj->bck", query, stream))
    values = np.einsum("bckj,cj->bck", stream, theta.W_V2)
    return Seen(sink, stream, readout, (readout * values).sum(axis=-1))


def _check_subtraction(T: int, t: int, s_tag: float, log_gain: float) -> None:
    check_segment(T, t)
    check_numbers(s_tag=s_tag, log_gain=log_gain)
    if s_tag == 1:
        raise Refused("s_tag = 1 makes [SEP]'s tag a number's: layer 2 cannot tell them apart")
    if max(log_gain, s_tag * (s_tag - 1)) > 300:
        raise Refused(
            f"log_gain = {log_gain:.6g}, s_tag = {s_tag:.6g}: e^G or e^(s(s-1)) exceeds e^300; "
            "give log_gain <= 300 and s_tag in [-16, 17]"
        )


def subtraction(T: int, t: int, *, log_gain: float, s_tag: float = 0.0) -> Weights:
    """C5: weights that average after [SEP] at t of T without a sink; G is log_gain; float64.

    Raises `NoSegment`, `NotFinite`, and `Refused` for s_tag = 1 or exponentials above e^300.
    """
    _check_subtraction(T, t, s_tag, log_gain)
    w = np.exp(-log_gain) * (t - 1 + np.exp(s_tag * (s_tag - 1)))
    return Weights(
        s_num=np.zeros(()),
        s_tag=np.asarray(s_tag, dtype=np.float64),
        W_V1=np.array([[-w, 0.0], [0.0, 0.0]]),
        W_Q2=np.array([[0.0, 0.0], [0.0, log_gain / (s_tag - 1)]]),
        W_K2=np.array([[0.0, 0.0], [0.0, 1.0]]),
        W_V2=np.array([[(T - 1 + np.exp(log_gain)) / (T - t)], [0.0]]),
    )


def subtraction_bound(T: int, t: int, X: float, *, log_gain: float, s_tag: float = 0.0) -> float:
    """(T-1)/n (t - 1 + e^{s(s-1)}) e^{-G} X: |f - m| is at most this wherever |x_i| <= X.

    Raises as `subtraction`, and `NoMagnitude`.
    """
    _check_subtraction(T, t, s_tag, log_gain)
    check_magnitude(X)
    w = np.exp(-log_gain) * (t - 1 + np.exp(s_tag * (s_tag - 1)))
    return float((T - 1) / (T - t) * w * X)


def subtraction_residual(
    x: Float[np.ndarray, "batch seq"], t: int, *, log_gain: float, s_tag: float = 0.0
) -> Float[np.ndarray, " batch"]:
    """f - m = -(w/n) sum_{i != t} (1 - a_i) c_i, relatively accurate. Raises as `subtraction`."""
    T = x.shape[1]
    _check_subtraction(T, t, s_tag, log_gain)
    crowd = _crowd(numbers_of(x, t), t)
    w = np.exp(-log_gain) * (t - 1 + np.exp(s_tag * (s_tag - 1)))
    apart = np.exp(log_sigmoid(crowd.log_size + 1 - s_tag))
    share = np.where(np.arange(1, T + 1) < t, 1.0, apart) * crowd.mean
    share[:, t - 1] = 0.0
    return -w / (T - t) * share.sum(axis=1)


def most_sink(t: int, X: float, s_tag: float = 0.0) -> float:
    """1 / (1 + e^{1-s} (1 + (t-1) e^{-X^2})): the most that a token after [SEP] gives it."""
    return float(1 / (1 + np.exp(1 - s_tag) * (1 + (t - 1) * np.exp(-X * X))))


def general(weights: Weights) -> General:
    """One set of weights as a stack of one case."""
    M = np.asarray(weights.W_Q2) @ np.asarray(weights.W_K2).T
    fields = weights.s_num, weights.s_tag, weights.W_V1, M, np.asarray(weights.W_V2)[:, 0]
    return General(*(np.asarray(field, dtype=np.float64)[None] for field in fields))


def _draw(rng: np.random.Generator) -> tuple[Float[np.ndarray, "batch seq"], int, float, float]:
    """Inputs inside the box, at its corners, and equal ones, which attain the bound for large X."""
    T, t = cases.shape(rng)
    X = float(np.exp(rng.uniform(np.log(0.1), np.log(30))))
    x = rng.uniform(-X, X, (cases.GROUP, T))
    x[::3] = X * np.sign(x[::3])
    x[0], x[1] = X, -X
    s_tag = float(rng.choice([rng.uniform(-3, 0.9), rng.uniform(1.1, 4)]))  # on both sides of 1
    return x, t, s_tag, float(rng.uniform(2, 30))


def rounding_of_subtraction(T: int, t: int, X: float, s_tag: float, log_gain: float) -> float:
    """Float64 error of f: u ((T + t) X / n + bound) (8 |G| (1 + |s|) / |s-1| + 8 s^2 + 4 T + 32).

    f adds x_j / n over all numbers, subtracts those before [SEP], at most (T + t - 2) X / n in all,
    and leaves `subtraction_bound` at most; each term carries the relative error of a softmax weight
    (twice its logit's), of V and of sums of T terms.
    """
    u = float(np.finfo(np.float64).eps)
    logit = abs(log_gain) * (1 + abs(s_tag)) / abs(s_tag - 1)
    size = (T + t) * X / (T - t) + subtraction_bound(T, t, X, log_gain=log_gain, s_tag=s_tag)
    return u * size * (8 * (logit + s_tag * s_tag) + 4 * T + 32)


def subtraction_errors(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """C5: |f - m| / bound in the general closed form, less its rounding."""
    found = []
    for _ in cases.groups(n):
        x, t, s, G = _draw(rng)
        T, X = x.shape[1], float(np.abs(x).max())
        f = read(general(subtraction(T, t, log_gain=G, s_tag=s)), x, t).output[:, 0]
        error = np.abs(f - x[:, t:].mean(axis=1)) - rounding_of_subtraction(T, t, X, s, G)
        found.append(error / subtraction_bound(T, t, X, log_gain=G, s_tag=s))
    return np.concatenate(found)


def subtraction_sinks(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """C5: the largest A1[i, t] after [SEP] / `most_sink`."""
    found = []
    for _ in cases.groups(n):
        x, t, s, G = _draw(rng)
        sink = read(general(subtraction(x.shape[1], t, log_gain=G, s_tag=s)), x, t).sink
        found.append(sink[:, 0, t:].max(axis=1) / most_sink(t, float(np.abs(x).max()), s))
    return np.concatenate(found) / (1 + 1e-12)
