"""Is low rank learned? Singular values of W_Q W_K^T and W_V W_O of every head, in two measures.

As weights, a direction that no token uses counts as much as any other. On data, what a head
reads is weighted by how much there is of it: C_q^(1/2) W_Q W_K^T S^(1/2) and S^(1/2) W_V W_O, with
C_q the second moment and S the covariance of the attention's input. (Not the second moment of
keys and values: what all keys share adds a constant to every logit of a query, and softmax and
the average drop it.)
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy.diagnose import effective_rank, singular_values
from toy.larger.model import EPSILON
from toy.larger.observe import Places
from toy.larger.shape import Shape
from toy.larger.weights import Weights
from toy.transformer import ToyTrace


class Ranks(NamedTuple):
    """Singular values, largest first, at most d_head of them; `data` marks the weighted ones."""

    QK: Float[np.ndarray, "layer head d_head"]
    OV: Float[np.ndarray, "layer head d_head"]
    QK_data: Float[np.ndarray, "layer head d_head"]
    OV_data: Float[np.ndarray, "layer head d_head"]


def effective(values: Float[np.ndarray, "*batch k"]) -> Float[np.ndarray, "*batch"]:
    """exp of the entropy of sigma / sum sigma; NaN for a matrix that is 0."""
    some = values.sum(axis=-1, keepdims=True) > 0
    return np.where(some[..., 0], effective_rank(np.where(some, values, 1.0)), np.nan)


def second_over_first(values: Float[np.ndarray, "*batch k"]) -> Float[np.ndarray, "*batch"]:
    """sigma_2 / sigma_1; NaN for a matrix that is 0."""
    some = values[..., 0] > 0
    return np.where(some, values[..., 1] / np.where(some, values[..., 0], 1.0), np.nan)


def ranks(shape: Shape, weights: Weights, left: ToyTrace, at: Places) -> Ranks:
    """Every head's; the norm's scale belongs to the weights that read through it."""
    numbers = at.before | at.sep | at.after
    QK = np.einsum("lhmd,lhnd->lhmn", weights.W_Q, weights.W_K).astype(np.float64)
    OV = np.einsum("lhmd,lhdn->lhmn", weights.W_V, weights.W_O).astype(np.float64)
    plain, weighted = [], []
    for layer in range(shape.layers):
        into = attention_input(shape, weights, layer, left)[numbers]
        moment, spread = into.T @ into / len(into), np.cov(into, rowvar=False)
        root = _root(spread)
        weighted.append((_root(moment) @ QK[layer] @ root, root @ OV[layer]))
        scale = gain(shape, weights, layer)
        plain.append((scale[:, None] * QK[layer] * scale, scale[:, None] * OV[layer]))
    return Ranks(*(_spectra(shape, kind, i) for kind in (plain, weighted) for i in (0, 1)))


def attention_input(
    shape: Shape, weights: Weights, layer: int, left: ToyTrace
) -> Float[np.ndarray, "batch seq d_model"]:
    """What the heads of a layer read: its stream, through its norm where it has one; float64."""
    stream = left.resid[layer].astype(np.float64)
    if not shape.norm:
        return stream
    centred = stream - stream.mean(axis=-1, keepdims=True)
    unit = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + EPSILON)
    return unit * gain(shape, weights, layer) + weights.norm_shift[_which(shape, layer)]


def _which(shape: Shape, layer: int) -> int:
    return layer * (2 if shape.mlp else 1)


def gain(shape: Shape, weights: Weights, layer: int) -> Float[np.ndarray, " d_model"]:
    """What the norm before a layer's attention multiplies by; ones where there is no norm."""
    if not shape.norm:
        return np.ones(shape.d_model)
    return np.asarray(weights.norm_scale[_which(shape, layer)], np.float64)


def _root(moment: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """The symmetric square root of a positive semidefinite matrix."""
    values, axes = np.linalg.eigh(moment)
    return (axes * np.sqrt(np.maximum(values, 0.0))) @ axes.T


def _spectra(
    shape: Shape, kind: list[tuple[np.ndarray, np.ndarray]], which: int
) -> Float[np.ndarray, "layer head d_head"]:
    return singular_values(np.stack([pair[which] for pair in kind]))[..., : shape.d_head]
