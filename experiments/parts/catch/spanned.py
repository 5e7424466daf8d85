"""How much of what a head writes lies in the directions of its sinks' tags, head by head."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from experiments import measure
from experiments.progress import Advance
from mech.capture import capture_blocks
from mech.heads import head_weights
from mech.probes import sinks, tags
from mech.trace import BlockTrace

MOST = 2
"""Tags of a head: those of its strongest sinks."""
DRAWS = 8
"""Draws of random tokens behind a null."""


class Spanned(NamedTuple):
    """Shares of the variance of z_q W_O over the queries q that are no sinks, by head.

    tags: in the span of v_s W_O, s the head's one or two strongest sinks. random: in the span of
    as many tokens that are no sinks, mean over draws. best: in as many principal components, the
    most that any directions hold. written: 1 - Σ |z_q - Σ_s A[q, s] v_s|² / Σ |z_q|² about the
    means, what the tags themselves account for; it may be negative. length: as tags, of z_q W_O
    with its mean. NaN in heads without sinks.
    """

    tags: Float[np.ndarray, "layer sequence head"]
    random: Float[np.ndarray, "layer sequence head"]
    best: Float[np.ndarray, "layer sequence head"]
    written: Float[np.ndarray, "layer sequence head"]
    length: Float[np.ndarray, "layer sequence head"]


def share(x: Float[np.ndarray, "token d"], directions: Float[np.ndarray, "some d"]) -> float:
    """Σ |P x|² / Σ |x|², P the projection on the span of the directions; x as it is, uncentred."""
    q, r = np.linalg.qr(directions.T.astype(np.float64))
    real = np.abs(np.diag(r)) > 1e-9 * max(float(np.abs(r).max()), 1e-300)
    total = float((x**2).sum())
    return float(((x @ q[:, real]) ** 2).sum() / total) if total > 0 else float("nan")


def of_head(
    z: Float[np.ndarray, "token d"],
    tag: Float[np.ndarray, "token d"],
    written: Float[np.ndarray, "sink d"],
    others: Float[np.ndarray, "other d"],
    generator: np.random.Generator,
) -> tuple[float, float, float, float, float]:
    """(tags, random, best, written, length) of one head, all vectors in the stream's geometry."""
    centred = z - z.mean(axis=0)
    total = float((centred**2).sum())
    if total == 0 or len(others) < len(written):
        return (np.nan, np.nan, np.nan, np.nan, np.nan)
    drawn = [generator.choice(len(others), len(written), replace=False) for _ in range(DRAWS)]
    variance = np.linalg.svd(centred, compute_uv=False) ** 2
    left = z - tag
    return (
        share(centred, written),
        float(np.mean([share(centred, others[at]) for at in drawn])),
        float(variance[: len(written)].sum() / total),
        1 - float(((left - left.mean(axis=0)) ** 2).sum()) / total,
        share(z, written),
    )


def look(
    model: PreTrainedModel,
    ids: Int[Tensor, "sequence seq"],
    epsilon: float,
    seed: int,
    advance: Advance,
) -> Spanned:
    """Every head of every block on every sequence; queries and sinks leave out the last SUPPORT."""
    found = []
    begin = 0
    for group in ids.split(measure.AT_ONCE):
        read = _Reader(model, epsilon, seed, begin)
        found.append(np.stack(capture_blocks(model, group, read)))
        begin += len(group)
        advance("tags")
    return Spanned(*np.concatenate(found, axis=1).transpose(3, 0, 1, 2))


def over_sequences(
    values: Float[np.ndarray, "layer sequence head"], least: int = 1
) -> Float[np.ndarray, "layer head"]:
    """Mean over the sequences where the head has a sink; 0 where these are fewer than `least`."""
    count = (~np.isnan(values)).sum(axis=1)
    return np.divide(
        np.nansum(values, axis=1), count, out=np.zeros(count.shape), where=count >= least
    )


class _Reader(NamedTuple):
    model: PreTrainedModel
    epsilon: float
    seed: int
    begin: int

    def __call__(self, block: BlockTrace) -> Float[np.ndarray, "sequence head 5"]:
        alpha = measure.block_score(block)
        W_O = head_weights(self.model, block.layer).W_O
        roots = [_root(W) for W in W_O]
        counted = sinks.guarded(alpha.shape[-1])
        counted[0] = True
        found = np.full((*alpha.shape[:2], 5), np.nan)
        for row, head in np.ndindex(*alpha.shape[:2]):
            score = alpha[row, head] * counted
            at = np.argsort(-score, kind="stable")[:MOST]
            at = np.sort(at[score[at] > self.epsilon])
            if len(at):
                generator = np.random.default_rng([self.seed, block.layer, self.begin + row, head])
                plain = np.flatnonzero(
                    (score <= self.epsilon) & counted & (np.arange(len(score)) > at[0])
                )
                found[row, head] = _of(block, row, head, at, plain, roots[head], generator)
        return found


def _of(
    block: BlockTrace,
    row: int,
    head: int,
    at: Int[np.ndarray, " sink"],
    plain: Int[np.ndarray, " query"],
    root: Float[np.ndarray, "d_head d_head"],
    generator: np.random.Generator,
) -> tuple[float, float, float, float, float]:
    weight, _ = tags.of_sinks(block.heads, row, at)
    group = block.heads.query.shape[1] // block.heads.key.shape[1]
    value = block.heads.value[row, head // group] @ root
    z = block.z[row, head] @ root
    tag = weight[head] @ value[at]
    return of_head(z[plain], tag[plain], value[at], value[plain], generator)


def _root(W_O: Float[np.ndarray, "d_head d_model"]) -> Float[np.ndarray, "d_head d_head"]:
    """R with R Rᵀ = W_O W_Oᵀ: products of rows of x R are those of x W_O, in d_head numbers."""
    values, vectors = np.linalg.eigh(W_O.astype(np.float64) @ W_O.T)
    return vectors * np.sqrt(np.maximum(values, 0))
