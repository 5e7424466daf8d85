"""One block reduced to what the survey needs of it: numbers a token, a head or a dimension.

Of a block's B × T × d and B × H × T arrays nothing is kept but sums, norms and cosines, so that a
survey holds a few numbers a token and layer, however wide the model is.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mech.probes import dormant, massive, outliers, reach, sinks, spells
from mech.trace import BlockTrace

NEARLY = 100.0
"""Medians of the state from which a token is called nearly massive (if it is also above 100).

A token is ordinary when no entry of it exceeds as many medians, however small: one token of a
hundred times the others' size decides a deviation over all.
"""


class Reduced(NamedTuple):
    """One block of one group of prompts.

    exact: equation 1, guarded by support. seen: the same per reachable key, at countable keys.
    score: mean α over heads. heads_on: heads of which the key is a guarded sink. cosine: to the
    first token after this block; attn_along, mlp_along: what the writes add along its direction.
    entering: the first token's norm before this block. hits: ordinary tokens in which a dimension
    exceeds six medians. deviation: of each dimension over the ordinary tokens, because a few
    massive ones would pass for a feature of all; 0 where there are none.
    """

    exact: reach.Counted
    seen: reach.Counted
    windowed: bool
    mass: Float[np.ndarray, "batch head"]
    missing: Float[np.ndarray, "batch head"]
    output: Float[np.ndarray, "batch head"]
    score: Float[np.ndarray, "batch seq"]
    heads_on: Int[np.ndarray, "batch seq"]
    norm: Float[np.ndarray, "batch seq"]
    entering: Float[np.ndarray, " batch"]
    cosine: Float[np.ndarray, "batch seq"]
    attn_along: Float[np.ndarray, "batch seq"]
    mlp_along: Float[np.ndarray, "batch seq"]
    nearly: Bool[np.ndarray, "batch seq"]
    steps: list[spells.Step]
    nearly_steps: list[spells.Step]
    hits: Int[np.ndarray, "batch d_model"]
    ordinary: Int[np.ndarray, " batch"]
    deviation: Float[np.ndarray, "batch d_model"]


class Entries(NamedTuple):
    """Massive activations of one state, by Sun et al.'s ratio and by NEARLY."""

    massive: Bool[np.ndarray, "batch seq d_model"]
    nearly: Bool[np.ndarray, "batch seq d_model"]


class Reader:
    """`reduce_block` for the blocks of one pass in order: what leaves one enters the next."""

    def __init__(self, epsilon: float) -> None:
        self.epsilon = epsilon
        self._before: Entries | None = None

    def __call__(self, block: BlockTrace) -> Reduced:
        """The block, reduced; only its massive entries are remembered until the next."""
        before = self._before or entries(block.resid_pre, block.real)
        self._before = entries(block.resid_post, block.real)
        return reduce_block(block, self.epsilon, before, self._before)


def entries(
    resid: Float[np.ndarray, "batch seq d_model"], real: Bool[np.ndarray, "batch seq"]
) -> Entries:
    """Of one state."""
    return Entries(*massive.massive_entries(resid, real, massive.RATIO, NEARLY))


def reduce_block(block: BlockTrace, epsilon: float, before: Entries, after: Entries) -> Reduced:
    """All probes of a block; `real` and `reach` say which tokens and keys may be asked."""
    real, first = block.real, reach.first_real(block.real)
    rows = np.arange(len(real))
    causal = reach.causal_reach(real)
    later = reach.later_keys(real, causal)
    alpha = sinks.score(block.received, causal)
    null = reach.null_received(block.heads.low, block.heads.high, real)
    countable = reach.countable(block.reach, null, epsilon=epsilon) & real
    by_reach = sinks.score(block.received, block.reach) * countable[:, None]
    nearly = np.any(after.nearly, axis=-1)
    ends = block.resid_pre, block.resid_post, block.attn_write, block.mlp_write
    state = block.resid_post[rows, first]
    direction = _unit(state)
    size = np.abs(block.resid_post)
    median = np.median(size, axis=-1, keepdims=True)
    most = NEARLY * massive.medians(block.resid_post, real)
    ordinary = real & (size <= most[:, None, None]).all(axis=-1)
    return Reduced(
        exact=reach.count_block(alpha, real, later, epsilon),
        seen=reach.count_block(by_reach, real, countable, epsilon),
        windowed=bool((block.reach != causal)[real].any()),
        mass=alpha[rows, :, first],
        missing=block.missing / real.sum(axis=1)[:, None],
        output=dormant.output_ratio(block.z, real),
        score=alpha.mean(axis=1),
        heads_on=(sinks.sinks(alpha, epsilon) & later[:, None]).sum(axis=1),
        norm=np.linalg.norm(block.resid_post, axis=-1),
        entering=np.linalg.norm(block.resid_pre[rows, first], axis=-1),
        cosine=_along(_unit(block.resid_post), direction),
        attn_along=_along(block.attn_write, direction, real),
        mlp_along=_along(block.mlp_write, direction, real),
        nearly=nearly,
        steps=spells.steps(before.massive, after.massive, *ends),
        nearly_steps=spells.steps(before.nearly, after.nearly, *ends),
        hits=((size > outliers.FACTOR * median) & ordinary[..., None]).sum(axis=1),
        ordinary=ordinary.sum(axis=1),
        deviation=_deviation(block.resid_post, ordinary),
    )


def _deviation(
    resid: Float[np.ndarray, "batch seq d_model"], ordinary: Bool[np.ndarray, "batch seq"]
) -> Float[np.ndarray, "batch d_model"]:
    none = np.zeros(resid.shape[-1], resid.dtype)
    return np.stack(
        [x[o].std(axis=0) if o.any() else none for x, o in zip(resid, ordinary, strict=True)]
    )


def _unit(x: Float[np.ndarray, "*axes d"]) -> Float[np.ndarray, "*axes d"]:
    """x / ‖x‖, and 0 where x is 0: nothing points nowhere."""
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)


def _along(
    x: Float[np.ndarray, "batch seq d"] | None,
    direction: Float[np.ndarray, "batch d"],
    shape: Bool[np.ndarray, "batch seq"] | None = None,
) -> Float[np.ndarray, "batch seq"]:
    """x · direction; NaN where a model does not say what it wrote."""
    if x is None:
        return np.full(() if shape is None else shape.shape, np.nan, np.float32)
    return np.matmul(x, direction[:, :, None])[..., 0]
