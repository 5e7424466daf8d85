"""Losses and gradients of many seeds at once: `reduced` with the seeds in the innermost axis.

The arithmetic is that of `reduced`, laid out for vector units: every array is [seq, batch, seed],
so that a sum over positions or sequences adds whole vectors of seeds. Sequences end at the same
row (the read-out is always the last one) and [SEP] has rows of its own, so that no number asks
what it is:

    caught   a_i = e_i / (1 + e_i),  e_i = exp(s_num x_i + s_tag - log N_i)            after [SEP]
    row t    w_i = exp(s_num x_i + s_tag - s_num^2 - s_tag^2)                          before it
             A1[t, t] = 1 / (1 + sum w)

One exponential serves both. w_i cannot overflow: its logarithm is at most (1 + x_i^2) / 4, as
s x - s^2 <= x^2 / 4. e_i can, and is cut where 1 + e_i = e_i already.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from toy import reduced
from toy.tasks import Batch
from toy.transformer import Weights

_CUT = 80.0
"""Logit above which a float32 sigmoid is 1 to the last bit, and so is a float64 one."""
_ELEMENTS = 2**16
"""Entries of an array that stays in a core's cache."""
_WIDEST = 256
"""Seeds side by side: more would leave the cache with a single sequence."""


class Lanes(NamedTuple):
    """What layer 1 does to a batch before any weight is known; 0 where a number is not."""

    x: Float[Array, "seq batch 1"]
    log_crowd: Float[Array, "seq batch 1"]  # log N_i, after [SEP]
    crowd_mean: Float[Array, "seq batch 1"]
    before: Float[Array, "seq batch 1"]  # 1 or 0
    after: Float[Array, "seq batch 1"]
    hidden: Float[Array, "seq batch 1"]  # -inf for padding and [SEP], which has rows of its own
    target: Float[Array, "batch 1"]


def share(batch: Batch) -> Lanes:
    """`reduced.share`, with the read-outs of all sequences in the last row."""
    shared = reduced.share(batch)
    seq = shared.x.shape[1]
    order = (jnp.arange(seq)[None] + batch.last[:, None]) % seq

    def column(values: Float[Array, "batch seq"]) -> Float[Array, "seq batch 1"]:
        return jnp.take_along_axis(values, order, axis=1).T[..., None]

    before = shared.before & shared.seen
    after = shared.seen & ~shared.before & ~shared.sep
    dtype = shared.x.dtype
    return Lanes(
        x=column(jnp.where(shared.seen, shared.x, 0.0)),
        log_crowd=column(jnp.where(after, shared.log_crowd, 0.0)),
        crowd_mean=column(shared.crowd_mean),
        before=column(before.astype(dtype)),
        after=column(after.astype(dtype)),
        hidden=column(jnp.where(before | after, 0.0, -jnp.inf).astype(dtype)),
        target=batch.target[:, None],
    )


class _Two(NamedTuple):
    """A vector of d_model = 2: its number and its tag, seeds innermost."""

    number: Float[Array, "... seed"]
    tag: Float[Array, "... seed"]


def _wide(seeds: Float[Array, " seed"], like: Float[Array, "..."]) -> Float[Array, "... seed"]:
    return seeds.reshape((1,) * (like.ndim - 1) + seeds.shape)


def _times(vector: _Two, matrix: Float[Array, "seed 2 2"]) -> _Two:
    """vector @ matrix, every seed with its own."""

    def column(k: int) -> Float[Array, "... seed"]:
        above, below = (_wide(matrix[:, i, k], vector.tag) for i in (0, 1))
        return vector.number * above + vector.tag * below

    return _Two(column(0), column(1))


def _layer_1(weights: Weights, lanes: Lanes) -> tuple[_Two, _Two]:
    """The stream of the numbers [seq, batch, seed], and that of [SEP] [batch, seed]."""
    s_num, s_tag = (_wide(jnp.asarray(s), lanes.x) for s in (weights.s_num, weights.s_tag))
    W_V1 = jnp.asarray(weights.W_V1)

    logit = s_num * lanes.x + s_tag - lanes.log_crowd
    power = jnp.exp(jnp.minimum(logit - lanes.before * (s_num**2 + s_tag**2), _CUT))
    caught = lanes.after * (power / (1 + power))
    seen = _Two(
        lanes.crowd_mean + caught * (s_num - lanes.crowd_mean),
        caught * (1 - s_tag) - 1,
    )
    written = _times(seen, W_V1)

    elsewhere = lanes.before * power
    itself = 1 / (1 + elsewhere.sum(axis=0))
    number = (elsewhere * lanes.x).sum(axis=0) * itself
    s_num, s_tag = s_num[0], s_tag[0]
    of_sep = _times(_Two(number + itself * s_num, itself * (1 - s_tag) - 1), W_V1)
    return (
        _Two(lanes.x + written.number, written.tag - 1),
        _Two(of_sep.number + s_num, of_sep.tag - s_tag),
    )


def _squared_errors(weights: Weights, lanes: Lanes) -> Float[Array, " seed"]:
    """The sum over the batch of (f - target)^2."""
    stream, sep = _layer_1(weights, lanes)
    W_QK = jnp.einsum("sik,sjk->sij", weights.W_Q2, weights.W_K2)
    query = _times(_Two(stream.number[-1], stream.tag[-1]), W_QK)
    score = query.number[None] * stream.number + query.tag[None] * stream.tag + lanes.hidden
    score_sep = query.number * sep.number + query.tag * sep.tag
    top = jax.lax.stop_gradient(jnp.maximum(score.max(axis=0), score_sep))
    read, read_sep = jnp.exp(score - top[None]), jnp.exp(score_sep - top)
    # Normalised before it is used: a softmax with one survivor then has no gradient, exactly.
    share_of = 1 / (read.sum(axis=0) + read_sep)
    read, read_sep = read * share_of[None], read_sep * share_of
    W_V2 = jnp.asarray(weights.W_V2)
    output = sum(
        ((read * of_numbers).sum(axis=0) + read_sep * of_sep) * _wide(W_V2[:, k, 0], read_sep)
        for k, (of_numbers, of_sep) in enumerate(zip(stream, sep, strict=True))
    )
    return jnp.square(output - lanes.target).sum(axis=0)


def _blocks(batch: int, entries: int) -> int:
    """How many parts of the batch, each with as many sequences, keep an array in the cache."""
    wanted = min(batch, -(-batch * entries // _ELEMENTS))
    return next(parts for parts in range(wanted, batch + 1) if batch % parts == 0)


def losses_and_gradients(weights: Weights, lanes: Lanes) -> tuple[Float[Array, " seed"], Weights]:
    """Every seed's mean squared error on the batch and its gradient in that seed's weights.

    Seeds are taken `_WIDEST` at a time, so that a seed costs as much beside thousands.
    """
    weights = jax.tree.map(jnp.asarray, weights)
    n = len(weights.s_tag)
    whole = n - n % _WIDEST if n > _WIDEST else 0
    if not whole:
        return _side_by_side(weights, lanes)
    rows = jax.tree.map(lambda w: w[:whole].reshape(-1, _WIDEST, *w.shape[1:]), weights)
    found = jax.lax.map(lambda row: _side_by_side(row, lanes), rows)
    found = jax.tree.map(lambda v: v.reshape(whole, *v.shape[2:]), found)
    if whole == n:
        return found
    rest = _side_by_side(jax.tree.map(lambda w: w[whole:], weights), lanes)
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), found, rest)


def _side_by_side(weights: Weights, lanes: Lanes) -> tuple[Float[Array, " seed"], Weights]:
    """The batch is taken in parts, so that memory does not grow by seeds times batch."""
    seq, batch, _ = lanes.x.shape
    parts = _blocks(batch, seq * len(jnp.asarray(weights.s_tag)))

    def add(total: tuple, part: Lanes) -> tuple[tuple, None]:
        errors, pull = jax.vjp(lambda w: _squared_errors(w, part), weights)
        return jax.tree.map(jnp.add, total, (errors, *pull(jnp.ones_like(errors)))), None

    def split(field: Float[Array, "..."]) -> Float[Array, "..."]:
        shape = (*field.shape[:-2], parts, batch // parts, 1)
        return jnp.moveaxis(field.reshape(shape), -3, 0)

    nothing = jax.tree.map(jnp.zeros_like, (jnp.asarray(weights.s_tag), weights))
    total, _ = jax.lax.scan(add, nothing, jax.tree.map(split, lanes))
    return jax.tree.map(lambda field: field / batch, total)
