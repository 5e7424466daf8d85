"""Which calibration tokens are sinks of the dense model: the first, and later ones.

What they read is protected (`bridge.protected`) or weighs more in a method's moments.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from mech.capture import capture_blocks
from mech.errors import BadInput
from mech.probes import sinks
from mech.trace import BlockTrace

ORDINARY, FIRST, LATER = 0, 1, 2
KINDS: tuple[str, ...] = ("ordinary tokens", "first tokens", "later sinks")


def sink_labels(
    model: PreTrainedModel,
    batches: Sequence[Int[Tensor, "_batch _seq"]],
    *,
    epsilon: float = sinks.EPSILON,
    least: int | None = None,
) -> list[Int[Tensor, "_batch _seq"]]:
    """FIRST for token 0; LATER for a guarded token that is a sink of ≥ `least` heads; ORDINARY.

    Heads are (layer, query head) pairs with α > ε (equation 1, over the queries that reach the
    key where a window keeps others from it). `least` is by default the number of heads of a
    layer: a token that a few heads prefer is none yet. Guarded: 0 < t < T - 16. Raises BadInput
    as `mech.capture.capture_blocks` does, and where sequences are too short for a guarded token.
    """
    labels = []
    for tokens in batches:
        if tokens.shape[1] < sinks.SHORTEST:
            raise BadInput(
                f"sinks are not told on {tokens.shape[1]} tokens: calibrate on windows of at least "
                f"{sinks.SHORTEST}"
            )
        found = [mask for mask in capture_blocks(model, tokens, lambda b: _found(b, epsilon))]
        heads = np.sum([mask.sum(axis=1) for mask in found], axis=0)
        later = (heads >= (least or found[0].shape[1])) & sinks.guarded(tokens.shape[1])
        label = torch.where(torch.from_numpy(later), LATER, ORDINARY)
        label[:, 0] = FIRST
        labels.append(label)
    return labels


def weights(
    labels: Sequence[Int[Tensor, "_batch _seq"]], factor: float
) -> list[Float[Tensor, "_batch _seq"]]:
    """w_t = `factor` for sinks, 1 for ordinary tokens: `token_weights` of `compress`."""
    if not factor > 0:
        raise BadInput(f"a weight of {factor} for sink tokens: above 0")
    return [torch.where(label == ORDINARY, 1.0, factor) for label in labels]


def _found(block: BlockTrace, epsilon: float) -> np.ndarray:
    return sinks.sinks(sinks.score(block.received, block.reach), epsilon)
