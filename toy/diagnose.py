"""What a trained seed has become: how well it averages, and whether by catch, tag, release."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from toy import reduced
from toy.spectrum import effective_rank, singular_values
from toy.tasks import averaging
from toy.train import Trained
from toy.transformer import Weights

FVU, SINK = 0.1, 0.9
"""`found`: less than this fraction of variance unexplained, more than this attention on [SEP]."""


class Diagnosis(NamedTuple):
    """One entry a seed; measured on `sequences` held-out sequences."""

    found: Bool[np.ndarray, " seed"]
    fvu: Float[np.ndarray, " seed"]  # MSE / Var(target)
    sink: Float[np.ndarray, " seed"]  # mean of A1[i, t] over i > t
    tag_gap: Float[np.ndarray, " seed"]  # mean tag after [SEP] less mean tag before it
    s_num: Float[np.ndarray, " seed"]
    s_tag: Float[np.ndarray, " seed"]
    rank_V1: Float[np.ndarray, " seed"]  # effective rank of W_V1
    rank_QK: Float[np.ndarray, " seed"]  # of W_Q2 W_K2^T
    ratio_V1: Float[np.ndarray, " seed"]  # sigma_2 / sigma_1
    ratio_QK: Float[np.ndarray, " seed"]
    W_V2: Float[np.ndarray, "seed d_model"]
    finite: Bool[np.ndarray, " seed"]
    sequences: int


def _masked_mean(values: Float[Array, "b s"], where: Bool[Array, "b s"]) -> Float[Array, ""]:
    return jnp.where(where, values, 0.0).sum() / where.sum()


@jax.jit
def _measure(weights: Weights, shared: reduced.Shared) -> tuple[Float[Array, " seed"], ...]:
    after = shared.seen & ~shared.before & ~shared.sep

    def one(weights: Weights) -> tuple[Float[Array, ""], ...]:
        seen = reduced.apply(weights, shared)
        tags = seen.stream[..., 1]
        return (
            jnp.square(seen.output - shared.target).mean() / shared.target.var(),
            _masked_mean(seen.sink, after),
            _masked_mean(tags, after) - _masked_mean(tags, shared.before),
        )

    return jax.lax.map(one, weights)


def held_out(trained: Trained, sequences: int) -> reduced.Shared:
    """Sequences of the recipe's task from a key that training never used."""
    recipe = trained.recipe
    key: Key[Array, ""] = jax.random.fold_in(jax.random.key(recipe.seed), 0x7E57)
    return reduced.share(
        averaging(
            key,
            batch=sequences,
            shortest=recipe.shortest,
            longest=recipe.longest,
            data=recipe.data,
        )
    )


def diagnose(trained: Trained, *, sequences: int = 4096) -> Diagnosis:
    """Every measure for every seed; what is not finite stays NaN and is not `found`."""
    weights = trained.weights
    measured = _measure(weights, held_out(trained, sequences))
    fvu, sink, tag_gap = (np.asarray(value, dtype=np.float64) for value in measured)
    W_V1 = np.asarray(weights.W_V1, dtype=np.float64)
    W_QK = np.asarray(weights.W_Q2, np.float64) @ np.asarray(weights.W_K2, np.float64).mT
    of_V1, of_QK = singular_values(W_V1), singular_values(W_QK)
    return Diagnosis(
        found=(fvu < FVU) & (sink > SINK),
        fvu=fvu,
        sink=sink,
        tag_gap=tag_gap,
        s_num=np.asarray(weights.s_num, np.float64),
        s_tag=np.asarray(weights.s_tag, np.float64),
        rank_V1=effective_rank(of_V1),
        rank_QK=effective_rank(of_QK),
        ratio_V1=of_V1[..., 1] / of_V1[..., 0],
        ratio_QK=of_QK[..., 1] / of_QK[..., 0],
        W_V2=np.asarray(weights.W_V2, np.float64)[..., 0],
        finite=trained.diverged_at < 0,
        sequences=sequences,
    )
