"""What the page keeps of one block: attention, sinks, colours, and what each key adds to z.

z_q = Σ_s A[q, s] v_s, so with ⟨x, y⟩ = x W_O · y W_O the shares
Σ_q ⟨A[q, s] v_s, z_q⟩ / Σ_q ⟨z_q, z_q⟩ of the keys s sum to one: how much of what the head writes
into the stream comes from each key. A share may be negative.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mech.attention import pattern_rows
from mech.probes import massive, reach, segments, sinks
from mech.trace import BlockTrace

ORDINARY = 100.0
"""A token with an activation above 100 and this many medians has no part in the colours."""


class BlockRead(NamedTuple):
    """One block of one prompt. null: α of attention without preference, which the mask decides."""

    pattern: Float[np.ndarray, "head query key"]
    alpha: Float[np.ndarray, "head key"]
    null: Float[np.ndarray, " key"]
    share: Float[np.ndarray, "head key"]
    z: Float[np.ndarray, "head seq d_head"]
    colour: Float[np.ndarray, "head seq 3"]
    colour_share: Float[np.ndarray, " head"]
    resid_pre: Float[np.ndarray, "seq d_model"]
    resid_post: Float[np.ndarray, "seq d_model"]


def read_block(
    block: BlockTrace, W_O: Float[np.ndarray, "head d_head d_model"], *, sequence: int = 0
) -> BlockRead:
    """Everything of one sequence of the batch."""
    seq = block.resid_pre.shape[1]
    pattern = pattern_rows(block.heads, np.arange(seq))[sequence]
    z, resid = block.z[sequence], block.resid_pre[sequence]
    value = block.heads.value[sequence].repeat(len(z) // block.heads.value.shape[1], axis=0)
    null = reach.null_received(block.heads.low, block.heads.high, block.real)[sequence]
    seen = block.reach[sequence]
    colours = [coloured(vectors, outlying(resid)) for vectors in z]
    return BlockRead(
        pattern=pattern,
        alpha=sinks.score(block.received, block.reach)[sequence],
        null=null / np.maximum(seen, 1),
        share=shares_of_keys(pattern, value, z, W_O),
        z=z,
        colour=np.array([colour for colour, _ in colours]),
        colour_share=np.array([share for _, share in colours]),
        resid_pre=resid,
        resid_post=block.resid_post[sequence],
    )


def shares_of_keys(
    pattern: Float[np.ndarray, "head query key"],
    value: Float[np.ndarray, "head key d_head"],
    z: Float[np.ndarray, "head query d_head"],
    W_O: Float[np.ndarray, "head d_head d_model"],
) -> Float[np.ndarray, "head key"]:
    """Σ_q ⟨A[q, s] v_s, z_q⟩ / Σ_q ⟨z_q, z_q⟩; zeros for a head that writes nothing."""
    dual = z @ (W_O @ W_O.swapaxes(-1, -2))
    whole = (z * dual).sum(axis=(-1, -2))[:, None]
    parts = (pattern * (dual @ value.swapaxes(-1, -2))).sum(axis=-2)
    return np.divide(parts, whole, out=np.zeros_like(parts), where=whole > 0)


def outlying(resid: Float[np.ndarray, "seq d_model"]) -> Bool[np.ndarray, " seq"]:
    """Tokens with an activation above 100 and above ORDINARY medians of the state."""
    return _marked(massive.is_massive(resid[None, None], ratio=ORDINARY))


def massive_tokens(resid: Float[np.ndarray, "seq d_model"]) -> Bool[np.ndarray, " seq"]:
    """Tokens with a massive activation (Sun et al. 2024, arXiv:2402.17762)."""
    return _marked(massive.is_massive(resid[None, None]))


def _marked(entries: Bool[np.ndarray, "1 1 seq d_model"]) -> Bool[np.ndarray, " seq"]:
    return np.logical_or.reduce(entries[0, 0], axis=-1)


def coloured(
    vectors: Float[np.ndarray, "seq d"], without: Bool[np.ndarray, " seq"]
) -> tuple[Float[np.ndarray, "seq 3"], float]:
    """Colours by principal components, and the variance they show; tokens left out are grey.

    The first token and those of `without`, the massive ones, would take all the contrast. Grey
    throughout where fewer than three tokens or two dimensions are left.
    """
    ordinary = ~without
    ordinary[0] = False
    colour = np.full((len(vectors), 3), 0.5)
    components = min(3, int(ordinary.sum()) - 1, vectors.shape[1])
    if components < 2:
        return colour, 0.0
    found = segments.segments(vectors[ordinary], components)
    colour[ordinary] = found.colour
    return colour, float(found.share.sum())
