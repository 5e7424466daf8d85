"""The same function of the weights as `Averager`, in O(T) per seed instead of O(T^2).

Layer 1 compares numbers with numbers by x_i x_k + 1, whatever the weights are. So for number
rows two shared quantities, the crowd N_i = sum_{k<=i, k!=t} e^{x_i x_k + 1} and its mean number
V_i / N_i, leave one unknown, a_i = 1 / (1 + N_i e^{-s_tag - s_num x_i}) after [SEP] and 0 before:

    (A1 E)_i = (1 - a_i) [V_i / N_i, -1] + a_i [s_num, -s_tag]

Row t and the read-out row of layer 2 are one softmax each. Seeds on the same minibatch share
all that is quadratic in T.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from toy.tasks import Batch
from toy.transformer import Weights


class Shared(NamedTuple):
    """What layer 1 does to a batch before any weight is known."""

    x: Float[Array, "batch seq"]
    log_crowd: Float[Array, "batch seq"]  # log N_i
    crowd_mean: Float[Array, "batch seq"]  # V_i / N_i
    before: Bool[Array, "batch seq"]
    sep: Bool[Array, "batch seq"]
    seen: Bool[Array, "batch seq"]  # not padding
    final: Bool[Array, "batch seq"]  # the read-out
    target: Float[Array, " batch"]


class Pass(NamedTuple):
    """The output, the sink A1[i, t] and the stream after layer 1."""

    output: Float[Array, " batch"]
    sink: Float[Array, "batch seq"]
    stream: Float[Array, "batch seq d_model"]


def share(batch: Batch) -> Shared:
    """Everything about a batch that no weight changes; O(T^2), once for all seeds."""
    i = jnp.arange(1, batch.x.shape[1] + 1)[None]
    sep = i == batch.t[:, None]
    x = jnp.where(sep, 0.0, batch.x)
    # Row t has no use for its crowd; it looks at itself so that no row is empty.
    sees = (i <= i.T)[None] & (~sep[:, None, :] | (i == i.T)[None])
    scores = jnp.where(sees, x[:, :, None] * x[:, None, :] + 1, -jnp.inf)
    return Shared(
        x=x,
        log_crowd=jax.nn.logsumexp(scores, axis=-1),
        crowd_mean=(jax.nn.softmax(scores, axis=-1) * x[:, None, :]).sum(axis=-1),
        before=i < batch.t[:, None],
        sep=sep,
        seen=i <= batch.last[:, None],
        final=i == batch.last[:, None],
        target=batch.target,
    )


def apply(weights: Weights, shared: Shared) -> Pass:
    """The output and layer 1 at one seed's weights; differentiable, in the batch's precision."""
    x, before, sep = shared.x, shared.before, shared.sep
    s_num, s_tag = weights.s_num, weights.s_tag

    caught = jax.nn.sigmoid(s_num * x + s_tag - shared.log_crowd)
    to_numbers = jnp.where(before, s_num * x + s_tag, -jnp.inf)
    row_t = jax.nn.softmax(jnp.where(sep, s_num**2 + s_tag**2, to_numbers), axis=-1)
    itself = jnp.where(sep, row_t, 0.0).sum(axis=-1, keepdims=True)
    sink = jnp.where(sep, itself, jnp.where(before, 0.0, caught))

    elsewhere = (row_t * x).sum(axis=-1, keepdims=True)  # x_t = 0: numbers only
    seen_numbers = jnp.where(sep, elsewhere, (1 - sink) * shared.crowd_mean)
    mixed = jnp.stack([seen_numbers + sink * s_num, -(1 - sink) - sink * s_tag], axis=-1)
    embedding = jnp.stack([jnp.where(sep, s_num, x), jnp.where(sep, -s_tag, -1.0)], axis=-1)
    stream = embedding + mixed @ weights.W_V1

    reader = jnp.where(shared.final[..., None], stream, 0.0).sum(axis=1) @ weights.W_Q2
    scores = (stream * (reader @ weights.W_K2.T)[:, None, :]).sum(axis=-1)
    pattern = jax.nn.softmax(jnp.where(shared.seen, scores, -jnp.inf), axis=-1)
    output = ((pattern[..., None] * stream).sum(axis=1) @ weights.W_V2)[:, 0]
    return Pass(output, sink, stream)


def loss(weights: Weights, shared: Shared) -> Float[Array, ""]:
    """The mean squared error of one seed on a batch."""
    return jnp.square(apply(weights, shared).output - shared.target).mean()
