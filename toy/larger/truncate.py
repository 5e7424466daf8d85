"""How low a rank is enough? Each matrix is cut to the r directions that matter most on data.

QK: C_q^(1/2) M S^(1/2) = U Sigma V^T, and M becomes M S^(1/2) V_r V_r^T S^(-1/2), the closest
rank-r logits on these tokens (C_q, S as in `ranks`). OV: C^(1/2) W_V W_O = U Sigma V^T, W_O becomes
W_O V_r V_r^T. All heads of a layer are cut at once, to rank r each. This is a causal measure: a
spectrum may have a tail that does nothing.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy.larger.observe import Places, fvu
from toy.larger.ranks import attention_input
from toy.larger.shape import Shape
from toy.larger.weights import Weights
from toy.tasks import Batch
from toy.transformer import ToyTrace

RANKS = (1, 2, 3, 4)
RELATIVE = 1e-10
"""Directions with less than this share of the largest variance are not there."""


class Truncated(NamedTuple):
    """Fraction of variance unexplained with all heads of one layer cut to rank r."""

    rank: tuple[int, ...]
    QK: Float[np.ndarray, "layer rank"]
    OV: Float[np.ndarray, "layer rank"]


def truncated(
    shape: Shape, weights: Weights, batch: Batch, left: ToyTrace, at: Places
) -> Truncated:
    """Every layer and rank in turn; the directions are found on the batch they are judged on."""
    kept = tuple(rank for rank in RANKS if rank < shape.d_head) or (1,)
    errors = np.zeros((2, shape.layers, len(kept)))
    for layer in range(shape.layers):
        into = attention_input(shape, weights, layer, left)[at.before | at.sep | at.after]
        for index, rank in enumerate(kept):
            for kind, cut in enumerate((cut_QK, cut_OV)):
                less = cut(weights, into, layer, rank)
                errors[kind, layer, index] = fvu(shape, less, batch)
    return Truncated(kept, errors[0], errors[1])


def cut_QK(
    weights: Weights, into: Float[np.ndarray, "token d_model"], layer: int, rank: int
) -> Weights:
    """W_Q W_K^T of every head of the layer becomes its best rank-`rank` logits on these tokens."""
    W_K = np.array(weights.W_K)
    query, _ = _roots(into.T @ into / len(into))
    key, inverse = _roots(np.cov(into, rowvar=False))
    for head, (W_q, W_k) in enumerate(zip(weights.W_Q[layer], weights.W_K[layer], strict=True)):
        V = _leading(query @ (W_q.astype(np.float64) @ W_k.T) @ key, rank)
        W_K[layer, head] = inverse @ V @ V.T @ key @ W_k
    return weights._replace(W_K=W_K)


def cut_OV(
    weights: Weights, into: Float[np.ndarray, "token d_model"], layer: int, rank: int
) -> Weights:
    """W_V W_O of every head of the layer writes only its `rank` leading directions."""
    W_O = np.array(weights.W_O)
    root, _ = _roots(into.T @ into / len(into))
    for head, (W_v, W_o) in enumerate(zip(weights.W_V[layer], weights.W_O[layer], strict=True)):
        V = _leading(root @ (W_v.astype(np.float64) @ W_o), rank)
        W_O[layer, head] = W_o @ V @ V.T
    return weights._replace(W_O=W_O)


def _leading(matrix: Float[np.ndarray, "d d"], rank: int) -> Float[np.ndarray, "d rank"]:
    return np.linalg.svd(matrix)[2][:rank].T


def _roots(
    moment: Float[np.ndarray, "d d"],
) -> tuple[Float[np.ndarray, "d d"], Float[np.ndarray, "d d"]]:
    """The symmetric square root and its inverse where there is variance."""
    values, axes = np.linalg.eigh(moment)
    there = values > RELATIVE * values[-1]
    roots = np.sqrt(np.where(there, values, 1.0))
    return (axes * np.where(there, roots, 0.0)) @ axes.T, (axes * there / roots) @ axes.T
