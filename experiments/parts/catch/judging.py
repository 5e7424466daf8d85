"""Heads that were chosen elsewhere, judged on sequences of any length."""

from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from experiments.probing.release import Marked, marked
from experiments.progress import Advance
from mech.capture import capture_blocks
from mech.heads import head_weights
from mech.trace import BlockTrace


def judged(
    model: PreTrainedModel,
    sequences: Sequence[Int[Tensor, " seq"]],
    places: Sequence[tuple[int, int]],
    epsilon: float,
    advance: Advance = lambda _: None,
) -> list[list[Marked | None]]:
    """Catch and tag of every (layer, head) of `places` on every sequence, each by itself."""
    W_O = {layer: head_weights(model, layer).W_O for layer, _ in places}
    seen: list[list[Marked | None]] = [[] for _ in places]

    def read(block: BlockTrace) -> None:
        for which, (layer, head) in enumerate(places):
            if layer == block.layer:
                seen[which].append(marked(block, 0, head, W_O[layer], epsilon))

    for ids in sequences:
        capture_blocks(model, ids[None], read)
        advance("sinks and tags")
    return seen
