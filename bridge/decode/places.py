"""The linears that a plan may name: those of the decoder blocks, and the output head."""

from collections.abc import Iterable

from torch import nn

from bridge.sites import linears
from mech.errors import BadInput

HEAD = "head"
"""The name of the output head in plans, inputs and recipes."""


def planned(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Linear]:
    """The linears of these names, in the order given.

    Raises BadInput where the model has no such linear.
    """
    names = list(names)
    there = linears(model) if any(name != HEAD for name in names) else {}
    if HEAD in names:
        there[HEAD] = head(model)
    for name in names:
        if name not in there:
            known = ", ".join(list(there)[:3])
            raise BadInput(f"no linear called {name!r} in the model; its own are like {known}")
    return {name: there[name] for name in names}


def head(model: nn.Module) -> nn.Linear:
    """The output head. Raises BadInput where it is no plain linear."""
    _, found = head_of(model)
    if not isinstance(found, nn.Linear):
        raise BadInput(
            f"{type(model).__name__} has no linear output head: leave {HEAD!r} out of the plan"
        )
    return found


def head_of(model: nn.Module) -> tuple[str, nn.Module | None]:
    """What stands as the output head, and its path; None where there is none."""
    found = getattr(model, "get_output_embeddings", lambda: None)()
    return next((p for p, module in model.named_modules() if module is found), ""), found
