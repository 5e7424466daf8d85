"""Two causal attention layers in numpy float64, any width, with what rounding can do to them.

    H = softmax(E QK1 E^T) E V1 + E,   h' = between(H),   f = softmax(h' QK2 h'^T) h' V2

`toy.transformer` is the same model at d_model = 2 in flax; this one takes a stack of weights, one
set a case, and any embedding. The softmax is causal and unscaled: a 1/sqrt(d_head) belongs to QK.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

UNIT = float(np.finfo(np.float64).eps)


class Model(NamedTuple):
    """QK = W_Q W_K^T of both layers and their values; cases are a leading axis, or absent."""

    QK1: Float[np.ndarray, "*case d_model d_model"]
    V1: Float[np.ndarray, "*case d_model d_model"]
    QK2: Float[np.ndarray, "*case d_model d_model"]
    V2: Float[np.ndarray, "*case d_model out"]


class Between(NamedTuple):
    """A token-wise map of the stream after layer 1 and a Lipschitz constant of it."""

    apply: Callable[[np.ndarray], np.ndarray]
    slope: float


class Pass(NamedTuple):
    """What a forward pass leaves, and how far rounding may have moved it (first order, proved)."""

    pattern_1: Float[np.ndarray, "case query key"]
    stream: Float[np.ndarray, "case seq d_model"]
    pattern_2: Float[np.ndarray, "case query key"]
    output: Float[np.ndarray, "case seq out"]
    rounding_pattern_1: Float[np.ndarray, " case"]  # relative
    rounding_stream: Float[np.ndarray, " case"]
    rounding_pattern_2: Float[np.ndarray, " case"]  # relative
    rounding_output: Float[np.ndarray, " case"]


def softmax(
    scores: Float[np.ndarray, "*case query key"], causal: bool = True
) -> Float[np.ndarray, "*case query key"]:
    """Rows of e^{score} over the keys that are not later than the query, divided by their sum."""
    seq = scores.shape[-1]
    visible = np.where(np.tri(seq, dtype=bool) | (not causal), scores, -np.inf)
    raised = np.exp(visible - visible.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def _largest(values: Float[np.ndarray, "case ..."]) -> Float[np.ndarray, " case"]:
    return values.reshape(len(values), -1).max(axis=1)


def attend(
    e: Float[np.ndarray, "case seq d_model"],
    QK: Float[np.ndarray, "*case d_model d_model"],
    moved: Float[np.ndarray, " case"],
    causal: bool = True,
) -> tuple[Float[np.ndarray, "case query key"], Float[np.ndarray, " case"]]:
    """The pattern and its relative rounding, where e itself is off by at most `moved`.

    A score is two inner products of length D: 2 (D + 1) u of its absolute products, and moved
    times the sums beside it; subtracting the maximum rounds once more. A softmax weight then
    carries the error of its exponent twice, and a division and a sum of T terms.
    """
    flipped, width = np.swapaxes(e, -1, -2), e.shape[-1]
    pattern = softmax(e @ QK @ flipped, causal)
    size, weights = np.abs(e), np.abs(QK)
    left, right = size @ weights, weights @ np.abs(flipped)
    products = _largest(left @ np.abs(flipped))
    beside = _largest(left.sum(axis=-1)) + _largest(right.sum(axis=-2))
    score = 2 * (width + 2) * UNIT * products + moved * beside
    return pattern, 2 * score + (e.shape[1] + 8) * UNIT


def run(
    model: Model,
    e: Float[np.ndarray, "case seq d_model"],
    between: Between | None = None,
    *,
    causal: bool = True,
) -> Pass:
    """Both layers at every position; `output` has no residual connection around layer 2.

    Without the causal mask, which only a counterexample wants, every token sees every token.
    """
    seq, width = e.shape[1:]
    exact = np.zeros(len(e))
    pattern_1, off_1 = attend(e, model.QK1, exact, causal)
    values = e @ model.V1
    written = _largest(np.abs(e) @ np.abs(model.V1))
    stream = e + pattern_1 @ values
    size = _largest(np.abs(stream))
    moved = (off_1 + (seq + width) * UNIT) * written + UNIT * size
    if between is not None:
        stream = between.apply(stream)
        moved = between.slope * moved + 8 * UNIT * (between.slope * size + 1)
    pattern_2, off_2 = attend(stream, model.QK2, moved, causal)
    read = np.abs(model.V2).sum(axis=-2, keepdims=True)
    output = pattern_2 @ (stream @ model.V2)
    values_2 = _largest(np.abs(stream) @ np.abs(model.V2))
    off_f = (off_2 + (seq + width) * UNIT) * values_2 + moved * read.max(axis=(-2, -1))
    return Pass(pattern_1, stream, pattern_2, output, off_1, moved, off_2, off_f)


def embed(
    x: Float[np.ndarray, "case seq"], t: int, s_tag: Float[np.ndarray, "*case"] | float
) -> Float[np.ndarray, "case seq 2"]:
    """e_i = [x_i, -1], e_t = [0, -s_tag]; the entry of x at t is ignored."""
    e = np.stack([x, -np.ones_like(x)], axis=-1)
    e[:, t - 1, 0] = 0.0
    e[:, t - 1, 1] = -np.asarray(s_tag)
    return e


def theorem_model(s_tag: float, b: float = 0.0, d: float = 1.0, w: float = 1.0) -> Model:
    """QK1 = I, V1 = diag(0, -w), QK2 = [[0, b], [0, d]], V2 = [1, 0]^T."""
    return Model(
        QK1=np.eye(2),
        V1=np.array([[0.0, 0.0], [0.0, -w]]),
        QK2=np.array([[0.0, b], [0.0, d]]),
        V2=np.array([[1.0], [0.0]]),
    )
