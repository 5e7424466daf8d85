"""Large dimensions of the stream that a block reads, at sinks and at other tokens."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from experiments import measure
from experiments.probing.figures.stems import rotated
from experiments.progress import Advance
from mech.capture import capture_blocks
from mech.probes import outliers, sinks
from mech.trace import BlockTrace

KINDS = ("first", "later", "other")
"""Tokens: the first where it is a sink, later sinks, and the others; the last SUPPORT are out."""


class Large(NamedTuple):
    """One block's reading of |x_j| / median_i |x_i|, the size of dimension j in its own token.

    share[k, i]: dimensions that are outliers (above 6 at 95% of the other tokens of sequence i),
    as a share of all; k = 1: the same vectors in rotated axes. peak[k, a, i]: mean over the tokens
    of kind a of log10 of the largest size. top[a][i]: for each of these tokens, its largest
    dimension; NaN and empty without such tokens. size[a]: mean over tokens, by dimension.
    """

    share: Float[np.ndarray, "2 sequence"]
    peak: Float[np.ndarray, "2 kind sequence"]
    top: list[list[Int[np.ndarray, " token"]]]
    size: Float[np.ndarray, "kind d_model"]


def kinds(alpha: Float[np.ndarray, "sequence head key"], epsilon: float) -> list[np.ndarray]:
    """Which tokens are of which kind, [sequence, key] each: sinks are those of any head."""
    found = sinks.sinks(alpha, epsilon).any(axis=1)
    guarded = sinks.guarded(alpha.shape[-1])
    first = np.arange(alpha.shape[-1]) == 0
    return [found & first, found & guarded, ~found & guarded]


def large(
    resid: Float[np.ndarray, "sequence seq d_model"],
    of_kind: list[Bool[np.ndarray, "sequence seq"]],
) -> Large:
    """Both statistics in the model's axes and in rotated ones."""
    turned = rotated(resid.reshape(-1, resid.shape[-1])).reshape(resid.shape)
    ways = [_sizes(resid), _sizes(turned)]
    share = [outliers.outlier_dims(x[:, None], of_kind[2][:, None]).mean(axis=1) for x in ways]
    peaks = [[_mean(np.log10(x.max(axis=-1)), kind) for kind in of_kind] for x in ways]
    top = ways[0].argmax(axis=-1)
    chosen = [[row[at] for row, at in zip(top, kind, strict=True)] for kind in of_kind]
    size = [ways[0][kind].sum(axis=0) / max(kind.sum(), 1) for kind in of_kind]
    return Large(np.array(share), np.array(peaks), chosen, np.array(size))


def look(
    model: PreTrainedModel, ids: Int[Tensor, "sequence seq"], epsilon: float, advance: Advance
) -> list[Large]:
    """`large` of the stream that enters every block, with the sinks of that block."""
    groups = ids.split(measure.AT_ONCE)

    def read(block: BlockTrace) -> Large:
        return large(block.resid_pre, kinds(measure.block_score(block), epsilon))

    found = []
    for group in groups:
        found.append(capture_blocks(model, group, read))
        advance("outliers")
    return [_joined(layer) for layer in zip(*found, strict=True)]


def same(top: list[Int[np.ndarray, " token"]]) -> Float[np.ndarray, " sequence"]:
    """By sequence, the share of its tokens whose largest dimension is that of most other tokens.

    Other tokens are those of the other sequences, so that nothing is compared with itself; NaN
    for a sequence without such tokens, or where no other has any.
    """
    found = np.full(len(top), np.nan)
    for i, mine in enumerate(top):
        others = np.concatenate([each for j, each in enumerate(top) if j != i])
        if len(mine) and len(others):
            found[i] = (mine == np.bincount(others).argmax()).mean()
    return found


def _sizes(x: Float[np.ndarray, "sequence seq d"]) -> Float[np.ndarray, "sequence seq d"]:
    size = np.abs(x)
    median = np.median(size, axis=-1, keepdims=True)
    return size / np.maximum(median, 1e-30)


def _mean(values: np.ndarray, where: np.ndarray) -> Float[np.ndarray, " sequence"]:
    count = where.sum(axis=1)
    total = np.where(where, values, 0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def _joined(parts: tuple[Large, ...]) -> Large:
    tops = [[row for part in parts for row in part.top[kind]] for kind in range(len(KINDS))]
    tokens = np.array([[sum(map(len, kind)) for kind in part.top] for part in parts], float)
    total = (tokens[..., None] * np.array([part.size for part in parts])).sum(axis=0)
    return Large(
        np.concatenate([part.share for part in parts], axis=1),
        np.concatenate([part.peak for part in parts], axis=2),
        tops,
        total / np.maximum(tokens.sum(axis=0), 1)[:, None],
    )
