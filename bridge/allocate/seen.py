"""What the linears of the dense model read, each with the statistic that is asked for."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from bridge.sites import linears
from bridge.statistics import Statistic
from bridge.stream import evaluating, hooked
from mech.errors import BadInput
from mech.tokens import check_ids


def seen(
    model: nn.Module,
    statistic: Statistic[Any],
    batches: Sequence[Int[Tensor, "_batch _seq"]],
    select: str = "*",
) -> dict[str, Any]:
    """The state of every selected linear after all batches, the whole model dense.

    Raises BadInput where there is no batch, an id is unknown, or a linear read no token.
    """
    if not batches:
        raise BadInput("no calibration batches: pass at least one")
    chosen = linears(model, select)
    states = {name: statistic.init(linear.in_features) for name, linear in chosen.items()}

    def watcher(name: str):
        def hook(_, args, kwargs):
            x = args[0] if args else kwargs["input"]
            states[name] = statistic.update(states[name], x.flatten(0, -2))

        return hook

    body: Any = getattr(model, "base_model", model)
    hooks = [(linear, "pre", watcher(name)) for name, linear in chosen.items()]
    with evaluating(model), torch.no_grad(), hooked(hooks):
        for tokens in batches:
            check_ids(model, tokens)
            body(input_ids=tokens.to(next(model.parameters()).device), use_cache=False)
    for name, state in states.items():
        if state.tokens == 0:
            raise BadInput(f"{name}: no calibration token reached it; calibrate on more text")
    return states
