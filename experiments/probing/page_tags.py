"""Who reads a tag: heads whose output changes when the tag is gone, more than by chance.

The tag of sink s in a head is A[q, s] v_s at every other query q (in a layer: that of all its
heads). One forward pass without it
gives z' of all later heads, and the change ‖z' − z‖ / ‖z‖ over the queries after s. The control is
a pass in which a random vector of the same norm is taken away beside the tag: what any change of
that size does. One prompt and one draw: an illustration.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

if TYPE_CHECKING:  # torch is imported when a prompt is read, not for --help
    from torch import Tensor
    from transformers import PreTrainedModel

    from mech.edits import Edit
    from mech.trace import BlockTrace

ROWS = 8
"""Sequences in one pass."""
ALL = -1
"""In place of a head: every head of the layer."""


class Tag(NamedTuple):
    """What one sink's token writes in one head, or in all heads of the layer (head = ALL)."""

    layer: int
    head: int
    token: int


class Tags(NamedTuple):
    """Tags, and what taking each away changed in later heads; 0 up to the tag's own layer."""

    layer: Int[np.ndarray, " tag"]
    head: Int[np.ndarray, " tag"]
    token: Int[np.ndarray, " tag"]
    changed: Float[np.ndarray, "tag layer head"]
    control: Float[np.ndarray, "tag layer head"]


def strongest(
    excess: Float[np.ndarray, "layer head key"],
    sinks: Bool[np.ndarray, "layer head key"],
    most: int,
) -> list[Tag]:
    """At most `most` tags: every sink's strongest layer, then its strongest head, its second, ….

    `excess` is the sink score less that of uniform attention; a layer has the sum over the heads
    where the token is a sink, and the token with the largest sum of all comes first. A sink of the
    last layer or at the last token writes for no later head.
    """
    able = np.where(sinks, np.maximum(excess, 0.0), 0.0)
    able[-1] = able[..., -1] = 0.0
    ranked: list[tuple[int, float, Tag]] = []
    for token, whole in enumerate(able.sum(axis=(0, 1)).tolist()):
        if whole == 0:
            continue
        layer = int(np.argmax(able[..., token].sum(axis=1)))
        ranked.append((0, -whole, Tag(layer, ALL, token)))
        order = np.argsort(-able[..., token], axis=None, kind="stable")[:most]
        for rank, index in enumerate(order):
            layer, head = (int(i) for i in np.unravel_index(index, able.shape[:2]))
            if able[layer, head, token] > 0:
                ranked.append((rank + 1, -whole, Tag(layer, head, token)))
    return [tag for _, _, tag in sorted(ranked)[:most]]


def measured(
    model: "PreTrainedModel",
    ids: "Int[Tensor, ' seq']",
    z: Float[np.ndarray, "layer head seq d_head"],
    chosen: list[Tag],
) -> Tags:
    """Both passes of every chosen tag, several sequences at a time; z is the untouched model's."""
    from mech.edits import RandomDirection, Remove, Where

    found: list[np.ndarray] = []
    for start in range(0, len(chosen), ROWS // 2):
        group = chosen[start : start + ROWS // 2]
        tokens = [tag.token for tag in group for _ in range(2)]
        edits: list[Edit] = []
        for index, tag in enumerate(group):
            heads = None if tag.head == ALL else (tag.head,)
            gone, control = (
                Where((tag.layer,), _only(2 * index + kind, tokens), heads) for kind in (0, 1)
            )
            edits += [Remove(gone), RandomDirection(control, added=True)]
        found.append(_changes(model, ids, z, tokens, edits))
    both = np.concatenate(found) if found else np.zeros((0, *z.shape[:2]))
    layer, head, token = np.array(chosen, dtype=np.int64).reshape(-1, 3).T
    later = np.arange(len(z)) > layer[:, None]
    changed, control = (both[kind::2] * later[..., None] for kind in (0, 1))
    return Tags(layer, head, token, changed, control)


def _only(row: int, tokens: list[int]) -> tuple[tuple[int, ...], ...]:
    """The token of one row, and none of the other rows: every sequence has its own edit."""
    return tuple((token,) if index == row else () for index, token in enumerate(tokens))


def _changes(
    model: "PreTrainedModel",
    ids: "Int[Tensor, ' seq']",
    z: Float[np.ndarray, "layer head seq d_head"],
    tokens: list[int],
    edits: "list[Edit]",
) -> Float[np.ndarray, "row layer head"]:
    """‖z' − z‖ / ‖z‖ over the queries after each row's token, in one pass under `edits`."""
    from mech.capture import capture_blocks
    from mech.causal import intervene

    after = np.arange(z.shape[2]) > np.array(tokens)[:, None]

    def read(block: "BlockTrace") -> np.ndarray:
        own = z[block.layer] * after[:, None, :, None]
        moved = (block.z - z[block.layer]) * after[:, None, :, None]
        size = np.linalg.norm(own, axis=(-1, -2))
        change = np.linalg.norm(moved, axis=(-1, -2))
        return np.divide(change, size, out=np.zeros_like(change), where=size > 0)

    with intervene(model, *edits) as edited:
        layers = capture_blocks(edited, ids.expand(len(tokens), -1), read)
    return np.stack(layers, axis=1)
