"""What a planted model must show, in closed form: pattern, sinks, what is read, without a run.

From the plan and the token ids alone. The noise in the weights is left out, and so is what a
massive token receives from heads (next to nothing after the norm); tests bound the difference.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mech.planted.plan import BOS, LENGTH, OUTLIER, RAISED, SEP, STOP, TAG, Plan
from mech.planted.stream import norm, numbers
from mech.planted.weights import coefficients
from mech.probes.sinks import EPSILON

Tokens = Int[np.ndarray, "batch seq"]


def heights(plan: Plan, tokens: Tokens, layer: int) -> Float[np.ndarray, "batch seq"]:
    """|what a sink's MLP wrote| in the stream that enters block `layer`, 0 at ordinary tokens."""
    lives = [
        (BOS, plan.created, plan.end, plan.heights[0]),
        (SEP, plan.separated, plan.end, plan.heights[1]),
        (STOP, plan.separated, plan.end, plan.heights[2]),
        (RAISED, plan.raised, plan.erased, plan.raised_height),
    ]
    found = np.zeros(tokens.shape)
    for token, born, gone, height in lives:
        if plan.massive and born < layer <= gone:
            found[tokens == token] = height
    return found


def tagged(plan: Plan, tokens: Tokens, layer: int, tag: int) -> Bool[np.ndarray, "batch seq"]:
    """Which tokens carry a tag (0: of BOS, 1: of SEP, 2: of STOP) when they enter block `layer`.

    The sinks themselves are tagged too, but a norm divides their tag by their own size.
    """
    if plan.kind != "plants" or layer <= plan.catch[0]:
        return np.zeros(tokens.shape, dtype=bool)
    segment = (tokens == SEP).cumsum(axis=1) + (tokens == STOP).cumsum(axis=1)
    return segment == tag


class Carried(NamedTuple):
    """Who carries a tag where the reader reads: STOP's, and any one at all (it adds to |h|)."""

    last: Bool[np.ndarray, "batch seq"]
    any: Bool[np.ndarray, "batch seq"]


def carried(plan: Plan, tokens: Tokens, layer: int) -> Carried:
    """The tags of a model that nobody edits; those without, or moved, are the caller's to say."""
    each = [tagged(plan, tokens, layer, tag) for tag in range(3)]
    return Carried(each[2], each[0] | each[1] | each[2])


def pattern(
    plan: Plan, tokens: Tokens, layer: int, head: int, *, tags: Carried | None = None
) -> Float[np.ndarray, "batch query key"]:
    """The attention of one head: softmax of the logits that `weights` writes down."""
    tags = tags or carried(plan, tokens, layer)
    height, size = _sizes(plan, tokens, layer, tags)
    u, sink = norm(plan, layer) / size, height / size
    along_p = np.select([tokens == BOS, tokens == RAISED], [sink, plan.cosine * sink])
    along_1, along_2 = sink * (tokens == SEP), sink * (tokens == STOP)
    logits, recent = coefficients(plan.roles[layer][head], plan.slopes[layer, head], plan.size.seq)
    # A massive token's tag is divided by its own size, as its u is.
    keys = np.stack([along_p, along_1, along_2, u * tags.last])
    seq = tokens.shape[1]
    back = np.sin((np.arange(seq)[:, None] - np.arange(seq)) / plan.size.seq)
    rows = np.einsum("c,cbk->bk", logits, keys)[:, None, :]
    rows = rows - recent * back * (u + along_p + along_1 + along_2)[:, None, :]
    rows = np.where(np.tri(seq, dtype=bool), u[:, :, None] * rows, -np.inf)
    odds = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return odds / odds.sum(axis=-1, keepdims=True)


def _sizes(
    plan: Plan, tokens: Tokens, layer: int, tags: Carried
) -> tuple[Float[np.ndarray, "batch seq"], Float[np.ndarray, "batch seq"]]:
    """What a sink's MLP wrote, and |h|, of every token that enters block `layer`."""
    height = heights(plan, tokens, layer)
    return height, np.sqrt(height**2 + OUTLIER**2 + LENGTH**2 + TAG**2 * tags.any)


def score(plan: Plan, tokens: Tokens) -> Float[np.ndarray, "layer batch head key"]:
    """alpha of equation 1 of every key, from `pattern`."""
    size, seq = plan.size, tokens.shape[1]
    received = [
        [pattern(plan, tokens, layer, head).sum(axis=1) for head in range(size.heads)]
        for layer in range(size.layers)
    ]
    return np.stack([np.stack(heads, axis=1) for heads in received]) / np.arange(seq, 0, -1)


def sinks(plan: Plan, tokens: Tokens) -> Bool[np.ndarray, "layer batch head key"]:
    """alpha > EPSILON: at planted sinks alone, as far as the guard of the probe reaches."""
    return score(plan, tokens) > EPSILON


def read(
    plan: Plan, tokens: Tokens, *, tags: Carried | None = None
) -> Float[np.ndarray, "batch seq"]:
    """What the reader writes along `out`: the mean of sqrt(d_model) x_v / |h| over what it reads.

    These are the tokens that carry STOP's tag: the last segment; where nobody does, all keys.
    """
    layer, head = plan.read
    tags = tags or carried(plan, tokens, layer)
    _, size = _sizes(plan, tokens, layer, tags)
    value = np.sqrt(plan.size.d_model) * numbers(plan)[tokens] / size
    weights = pattern(plan, tokens, layer, head, tags=tags)
    return np.einsum("bqk,bk->bq", weights, value)
