"""The tag of sink s on query q: A[q, s] v_s W_O, what the head writes into q because q looked at s.

Zhang & Papyan 2025, "Attention Sinks and Outlier Features: A 'Catch, Tag, and Release' Mechanism
for Embeddings", section 3: the value contribution along the sink's value direction. Everything is
measured after W_O, in the stream, by ⟨x, y⟩ = (x W_O) · (y W_O) for x, y in the head's own space,
so that no array of d_model numbers a query is made. Where there is no W_O it is the identity.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mech.attention import pattern_columns
from mech.trace import Heads


class Tags(NamedTuple):
    """One sequence, every head, query and sink.

    norm = |A[q, s] v_s W_O|, in the units of the stream. share = ⟨A[q, s] v_s, z_q⟩ / ⟨z_q, z_q⟩:
    shares of all keys sum to 1, and one may exceed 1 where others point against it. along =
    ⟨z_q, v_s⟩ / (|z_q| |v_s|): the cosine of the head's output with the tag's direction, whoever
    wrote it. Entries are 0 where z_q or v_s is.
    """

    norm: Float[np.ndarray, "head query sink"]
    share: Float[np.ndarray, "head query sink"]
    along: Float[np.ndarray, "head query sink"]


def tags(
    weight: Float[np.ndarray, "head query sink"],
    value: Float[np.ndarray, "head sink d_head"],
    z: Float[np.ndarray, "head query d_head"],
    W_O: Float[np.ndarray, "head d_head d_model"],
) -> Tags:
    """The tags of one sequence; weight[h, q, s] = A[q, s] and value[h, s] = v_s of query head h."""
    gram = W_O @ W_O.swapaxes(-1, -2)
    size = _norm(value, gram)[:, None]
    whole = _norm(z, gram)[..., None]
    inner = z @ gram @ value.swapaxes(-1, -2)
    return Tags(
        norm=weight * size,
        share=weight * _over(inner, whole**2),
        along=_over(inner, whole * size),
    )


def cosines(
    value: Float[np.ndarray, "head sink d_head"], W_O: Float[np.ndarray, "head d_head d_model"]
) -> Float[np.ndarray, "head sink sink"]:
    """⟨v_s, v_t⟩ / (|v_s| |v_t|): whether two sinks' tags can be told apart by their direction."""
    gram = W_O @ W_O.swapaxes(-1, -2)
    size = _norm(value, gram)
    inner = value @ gram @ value.swapaxes(-1, -2)
    return _over(inner, size[:, :, None] * size[:, None])


def of_sinks(
    heads: Heads, row: int, sinks: Int[np.ndarray, " sink"]
) -> tuple[Float[np.ndarray, "head query sink"], Float[np.ndarray, "head sink d_head"]]:
    """(weight, value) of sequence `row` for `tags`, from what a capture keeps of a block.

    Own queries count 0: what a sink writes into itself is no tag. BadInput for a token outside
    the sequence.
    """
    weight = pattern_columns(heads, sinks)[row]
    weight[:, sinks, np.arange(len(sinks))] = 0
    groups = heads.query.shape[1] // heads.key.shape[1]
    return weight, heads.value[row][:, sinks].repeat(groups, axis=0)


def _norm(x: Float[np.ndarray, "head some d_head"], gram: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(((x @ gram) * x).sum(axis=-1), 0))


def _over(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(
        a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape), a.dtype), where=b > 0
    )
