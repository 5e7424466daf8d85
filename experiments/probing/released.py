"""Reads a model for `release`: sink scores to choose by, and the judged sequences' blocks."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from experiments.probing.release import Marked, Released, choose, marked, measure
from experiments.progress import Advance
from mech.capture import capture_blocks
from mech.heads import head_weights
from mech.trace import BlockTrace

AT_ONCE = 4  # sequences in one pass


class Look(NamedTuple):
    """The heads that were chosen, what each did on every judged sequence, and the summary."""

    places: list[tuple[int, int]]
    seen: list[list[Marked | None]]
    released: Released


def look(
    model: PreTrainedModel,
    ids: Int[Tensor, "sequences seq"],
    scores: Float[np.ndarray, "layer sequences head key"],
    epsilon: float,
    advance: Advance,
    *,
    heads: int = 4,
) -> Look:
    """The even sequences choose the heads, the odd ones judge them."""
    places = choose(scores[:, ::2], epsilon, heads)
    W_O = {layer: head_weights(model, layer).W_O for layer, _ in places}
    seen: list[list[Marked | None]] = [[] for _ in places]
    streams: list[np.ndarray] = []

    def read(block: BlockTrace) -> tuple[np.ndarray, np.ndarray]:
        for which, (layer, head) in enumerate(places):
            if layer == block.layer:
                rows = range(len(block.z))
                seen[which] += [marked(block, row, head, W_O[layer], epsilon) for row in rows]
        return block.resid_pre, block.resid_post

    for group in ids[1::2].split(AT_ONCE):
        blocks = capture_blocks(model, group, read)
        streams.append(np.stack([blocks[0][0], *(post for _, post in blocks)]))
        advance("release")
    return Look(places, seen, measure(places, seen, np.concatenate(streams, axis=1)))
