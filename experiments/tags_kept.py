"""Sinks and their tags in one pass: what a sink would write, beside the dense model's."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from bridge.component import components
from bridge.operators import Affine, LinearOperator
from bridge.sites import module
from experiments import measure
from experiments.progress import Advance
from experiments.recalls import Ratio
from mech.capture import capture_blocks
from mech.errors import BadInput
from mech.probes import sinks
from mech.trace import BlockTrace


class Tagged(NamedTuple):
    """scores: α, as `measure.sink_scores`. tags: v_s W_O[h] of the dense model's sinks.

    where: the dense model's first and guarded later sinks. tags[i] belongs to the i-th true entry
    of `where` in order of layer, sequence, head, key.
    """

    scores: Float[np.ndarray, "layer sequences head key"]
    where: Bool[np.ndarray, "layer sequences head key"]
    tags: Float[np.ndarray, "sinks d_model"]


def outputs(model: PreTrainedModel) -> list[str]:
    """Names of every layer's W_O; of the model before linears are replaced."""
    return [c.names["o"] for c in components(model) if c.kind == "attention"]


def tagged(
    model: PreTrainedModel,
    names: Sequence[str],
    ids: Int[Tensor, "sequences seq"],
    dense: Bool[np.ndarray, "layer sequences head key"] | None,
    advance: Advance,
) -> Tagged:
    """One pass over `ids`; `dense` says where tags are read, None: where this model has sinks."""
    weights = matrices(model, names)
    scores, where, tags = [], [], []
    begin = 0
    for group in ids.split(measure.AT_ONCE):
        here = None if dense is None else dense[:, begin : begin + len(group)]
        found = capture_blocks(model, group, lambda b, here=here: _read(b, weights, here))
        scores.append(np.stack([s for s, _, _ in found]))
        where.append(np.stack([w for _, w, _ in found]))
        tags.append([t for _, _, t in found])
        begin += len(group)
        advance("sinks and tags")
    layers = zip(*tags, strict=True)
    return Tagged(
        np.concatenate(scores, axis=1),
        np.concatenate(where, axis=1),
        np.concatenate([piece for layer in layers for piece in layer]),
    )


def tags_kept(changed: Tagged, dense: Tagged) -> Ratio:
    """cos of v_s W_O with the dense model's, summed over its sinks of each sequence, and how many.

    A direction only: whether the sink is still looked at is told by recall. A tag of length 0 has
    cosine 0.
    """
    norm = np.linalg.norm(changed.tags, axis=1) * np.linalg.norm(dense.tags, axis=1)
    inner = (changed.tags * dense.tags).sum(axis=1)
    cosine = np.divide(inner, norm, out=np.zeros_like(inner), where=norm > 0)
    sequence = np.nonzero(dense.where)[1]
    count = dense.where.shape[1]
    return Ratio(
        np.bincount(sequence, cosine, count).astype(np.float64),
        np.bincount(sequence, minlength=count).astype(np.float64),
    )


def matrices(
    model: PreTrainedModel, names: Sequence[str]
) -> list[Float[np.ndarray, "d_model d_in"]]:
    """W_O by layer, of linears and of operators that have a matrix."""
    return [_matrix(model, name) for name in names]


def tags_at(
    block: BlockTrace, W_O: Float[np.ndarray, "d_model d_in"], where: np.ndarray
) -> Float[np.ndarray, "sinks d_model"]:
    """v_s W_O[h] at the true entries of `where` [sequences, head, key], in their order."""
    n_heads, n_kv = block.heads.query.shape[1], block.heads.key.shape[1]
    sequence, head, key = np.nonzero(where)
    value = block.heads.value[sequence, head // (n_heads // n_kv), key]
    by_head = W_O.T.reshape(n_heads, value.shape[-1], -1)
    tags = np.zeros((len(head), by_head.shape[-1]), value.dtype)
    for one in np.unique(head):
        tags[head == one] = value[head == one] @ by_head[one]
    return tags


def _read(
    block: BlockTrace, weights: Sequence[np.ndarray], dense: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    alpha = measure.block_score(block)
    if dense is None:
        counted = sinks.guarded(alpha.shape[-1])
        counted[0] = True
        where = sinks.sinks(alpha, measure.EPSILON) & counted
    else:
        where = dense[block.layer]
    return alpha, where, tags_at(block, weights[block.layer], where)


def _matrix(model: PreTrainedModel, name: str) -> Float[np.ndarray, "d_model d_in"]:
    found = module(model, name)
    if isinstance(found, Affine):
        found = found.term
    if isinstance(found, nn.Linear):
        return found.weight.detach().float().cpu().numpy()
    if isinstance(found, LinearOperator):
        return found.dense().detach().float().cpu().numpy()
    raise BadInput(f"{name} is a {type(found).__name__}: its matrix is not known")
