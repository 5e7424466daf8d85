"""A model under edits, and the tokens that edits are compared with.

    with intervene(model, Remove(Where(layers=(4,), sinks=((0, 17),)))) as changed:
        losses = changed(tokens).logits

Weights are never touched: the heads' outputs are edited on their way to W_O, through the function
that stands in for the model's attention (mech/standing.py), which is the model's own again
afterwards. Captures and losses taken inside see the edited model; interventions may nest, the
outer one's edits first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from mech import standing
from mech.blocks import decoder_blocks
from mech.edits import Edit
from mech.errors import BadInput
from mech.heads import head_weights
from mech.reach import Seen, Sinks


@contextmanager
def intervene(model: PreTrainedModel, *edits: Edit) -> Iterator[PreTrainedModel]:
    """z^l ↦ edit(z^l) for every edit at layer l, in their order; the model is as before at the end.

    Raises BadInput for a layer that is not there, and inside, where an edit's heads or sinks do not
    fit what the model is given.
    """
    n_layers = len(decoder_blocks(model))
    by_layer: dict[int, list[standing.Edit]] = {}
    gram = cache(partial(_gram, model))
    for edit in edits:
        for layer in edit.where.layers:
            if layer >= n_layers:
                raise BadInput(f"layer {layer}: this model's run from 0 to {n_layers - 1}")
            by_layer.setdefault(layer, []).append(partial(_apply, edit, partial(gram, layer)))
    with standing.editing(model, by_layer):
        yield model


def elsewhere(sinks: Sinks, seq: int, *, avoid: Sinks = (), first: int = 1, seed: int = 0) -> Sinks:
    """As many random tokens a sequence as it has sinks, none of them a sink or in `avoid`.

    The control of any edit: the same change at tokens that nobody rests on. Tokens from `first` to
    seq - 1 are drawn, without replacement. Raises BadInput where too few are left.
    """
    generator = np.random.default_rng(seed)
    drawn = []
    for index, row in enumerate(sinks):
        taken = {*row, *(avoid[index] if avoid else ())}
        free = [token for token in range(first, seq) if token not in taken]
        if len(free) < len(row):
            raise BadInput(f"{len(row)} other tokens are asked of the {len(free)} that are left")
        drawn.append(tuple(sorted(generator.choice(free, len(row), replace=False).tolist())))
    return tuple(drawn)


def _apply(edit: Edit, gram: partial, z: Tensor, call: standing.Call) -> Tensor:
    return edit(z, Seen(**call._asdict(), gram=gram))


def _gram(model: PreTrainedModel, layer: int) -> Float[Tensor, "head d_head d_head"]:
    out = torch.from_numpy(head_weights(model, layer).W_O)
    return out @ out.mT
