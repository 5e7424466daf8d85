"""Outputs of many weight settings on the same sequences, in float64."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from toy import reduced
from toy.laws.tails import Sequences
from toy.tasks import Batch
from toy.transformer import Weights

_CHUNK = 2**21
"""Scores of layer 1 held at once, sequences x T x T: 16 MB."""


class Seen(NamedTuple):
    """What weights make of sequences."""

    output: Float[np.ndarray, "seed case"]
    leak: Float[np.ndarray, "seed case"]  # p_pre (v - m): what the numbers before [SEP] add
    gap: Float[np.ndarray, "seed case"]  # log of a mean weight after [SEP] over one before it


def target(sequences: Sequences) -> Float[np.ndarray, " case"]:
    """m: the mean after [SEP]."""
    i = np.arange(1, sequences.x.shape[1] + 1)
    after = i > sequences.t[:, None]  # 0 stands after the last token
    return np.where(after, sequences.x, 0.0).sum(axis=1) / (sequences.last - sequences.t)


def stacked(weights: list[Weights]) -> Weights:
    """One setting of weights a seed."""
    return Weights(*(np.stack(field) for field in zip(*weights, strict=True)))


def product(weights: Weights) -> Float[np.ndarray, "*seeds 2 2"]:
    """M = W_Q2 W_K2^T, in float64."""
    W_Q2, W_K2 = (np.asarray(w, dtype=np.float64) for w in (weights.W_Q2, weights.W_K2))
    return W_Q2 @ W_K2.mT


def with_product(weights: Weights, M: Float[np.ndarray, "*seeds 2 2"]) -> Weights:
    """The same function with W_Q2 = M, W_K2 = 1: a change is a change of the product."""
    return weights._replace(W_Q2=M, W_K2=np.broadcast_to(np.eye(2), M.shape))


def shared(sequences: Sequences) -> reduced.Shared:
    """What layer 1 does to the sequences before any weight is known; call it with x64 enabled."""
    x, t, last = (jnp.asarray(field) for field in sequences[:3])
    return reduced.share(Batch(x, t, last, jnp.asarray(target(sequences))))


@jax.jit
def _look(
    weights: Weights, batch: reduced.Shared, t: Int[Array, " case"]
) -> tuple[Float[Array, "seed case"], ...]:
    def one(weights: Weights) -> tuple[Float[Array, " case"], ...]:
        seen = reduced.apply(weights, batch)
        reader = jnp.where(batch.final[..., None], seen.stream, 0.0).sum(axis=1) @ weights.W_Q2
        scores = (seen.stream * (reader @ weights.W_K2.T)[:, None, :]).sum(axis=-1)
        pattern = jax.nn.softmax(jnp.where(batch.seen, scores, -jnp.inf), axis=-1)
        before = jnp.where(batch.before, pattern, 0.0).sum(axis=1)
        behind = batch.seen & ~batch.before & ~batch.sep
        after = jnp.where(behind, pattern, 0.0).sum(axis=1)
        away = jnp.where(batch.before, pattern * (batch.x - batch.target[:, None]), 0.0)
        log_each = jnp.log(after / behind.sum(axis=1)) - jnp.log(before / (t - 1))
        return seen.output, away.sum(axis=1), log_each

    return jax.lax.map(one, weights)


def look(weights: Weights, sequences: Sequences) -> Seen:
    """Run every seed on every sequence; the gap of a sequence without numbers before [SEP] is NaN.

    Shapes: weights with seeds leading. Raises nothing of its own.
    """
    step = max(1, _CHUNK // sequences.x.shape[1] ** 2)
    found = []
    with jax.enable_x64(True):
        cast = Weights(*(jnp.asarray(field, dtype=jnp.float64) for field in weights))
        for at in range(0, len(sequences.t), step):
            rows = Sequences(*(field[at : at + step] for field in sequences))
            found.append([np.asarray(v) for v in _look(cast, shared(rows), jnp.asarray(rows.t))])
    return Seen(*(np.concatenate(part, axis=1) for part in zip(*found, strict=True)))


def unexplained(
    output: Float[np.ndarray, "*seeds case"], sequences: Sequences
) -> Float[np.ndarray, "*seeds"]:
    """E[(f - m)^2] / E[m^2], weighted."""
    m = target(sequences)
    errors = (sequences.weight * (output - m) ** 2).mean(axis=-1)
    return np.asarray(errors / (sequences.weight * m**2).mean())


def centred(
    output: Float[np.ndarray, "*seeds case"], sequences: Sequences
) -> Float[np.ndarray, "*seeds case"]:
    """The output less its mean error: what it would be with the best constant added."""
    error = (sequences.weight * (output - target(sequences))).mean(axis=-1, keepdims=True)
    return output - error / sequences.weight.mean()
