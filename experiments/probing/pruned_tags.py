"""Are the tags of a dense model still written after it was changed?

The dense model says which heads tag, and which sink caught each token. In a changed model the
same heads' outputs at the same tokens are grouped by those labels: where the tag is still
written, tokens of one sink lie together.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from experiments.probing.release import LEAST, choose
from experiments.progress import Advance
from mech.capture import capture_blocks
from mech.probes import agreement, catch, sinks, tags
from mech.trace import BlockTrace

__all__ = ["choose", "grouped", "labelled"]

AT_ONCE = 4  # sequences in one pass
DRAWS = 30  # random cuts of the null


def labelled(
    model: PreTrainedModel,
    ids: Int[Tensor, "sequences seq"],
    places: Sequence[tuple[int, int]],
    epsilon: float,
    advance: Advance,
) -> Int[np.ndarray, "place sequences key"]:
    """Which of the sinks of (layer, head) caught each token, by number; -1 for none.

    -1 too for sinks themselves, for tokens of a sink that caught fewer than three, and for all
    tokens where fewer than two sinks are left. Sinks: the first token and guarded later ones.
    """
    found = np.full((len(places), *ids.shape), -1)

    def read(block: BlockTrace, begin: int) -> None:
        for place, (layer, head) in enumerate(places):
            if layer == block.layer:
                for row in range(len(block.z)):
                    found[place, begin + row] = _labels(block, row, head, epsilon)

    begin = 0
    for group in torch.split(ids, AT_ONCE):
        capture_blocks(model, group, lambda block, begin=begin: read(block, begin))
        begin += len(group)
        advance("who is caught")
    return found


def _labels(block: BlockTrace, row: int, head: int, epsilon: float) -> Int[np.ndarray, " key"]:
    alpha = sinks.score(block.received, block.reach)[row, head]
    allowed = sinks.guarded(len(alpha))
    allowed[0] = True
    at = np.flatnonzero(sinks.sinks(alpha, epsilon) & allowed)
    labels = np.full(len(alpha), -1)
    if len(at) < 2:
        return labels
    weight, _ = tags.of_sinks(block.heads, row, at)
    caught = catch.caught_by(weight[head], np.arange(len(at)), least=LEAST)
    caught[at] = -1
    kept = agreement.usable(caught)
    if kept is not None:
        labels[kept] = caught[kept]
    return labels


def grouped(
    z: Float[np.ndarray, "sequences seq d_head"], labels: Int[np.ndarray, "sequences seq"]
) -> Float[np.ndarray, "sequences 4"]:
    """η², η² of contiguous segments, ARI, ARI with contiguous segments; NaN without labels.

    Of outputs that are all alike no group can be told: η² and ARI are then 0, and so are nulls.
    """
    found = np.full((len(z), 4), np.nan)
    for row, (vectors, own) in enumerate(zip(z, labels, strict=True)):
        kept = np.flatnonzero(own >= 0)
        if not len(kept):
            continue
        if np.ptp(vectors[kept], axis=0).max() == 0:
            found[row] = 0
            continue
        each = agreement.grouping(vectors[kept], own[kept], draws=DRAWS)
        found[row] = each.eta2, each.eta2_contiguous, each.ari, each.ari_contiguous
    return found
