"""MLPs of the form down(act(gate x) ∘ up x), which CATS, GRIFFIN and ReLU look into."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from torch import nn

from bridge.operators import Operator
from bridge.sites import module
from mech.blocks import decoder_blocks
from mech.errors import BadInput

PARTS = ("gate_proj", "up_proj", "down_proj", "act_fn")
PLACED = (nn.Linear, Operator)


class GatedMLP(NamedTuple):
    """Full names of the MLP and of its linears; d_mlp neurons."""

    name: str
    gate: str
    up: str
    down: str
    d_mlp: int


def gated_mlps(model: nn.Module) -> list[GatedMLP]:
    """Every one whose parts are called gate_proj, up_proj, down_proj and act_fn, by depth.

    The parts may be linears or operators in their place. Raises BadInput where there is none:
    what these baselines skip are neurons of a gated MLP.
    """
    found = []
    for path, mlp in decoder_blocks(model).named_modules():
        gate = getattr(mlp, PARTS[0], None)
        if isinstance(gate, PLACED) and all(hasattr(mlp, part) for part in PARTS):
            name = f"layers.{path}"
            gates, ups, downs = (f"{name}.{part}" for part in PARTS[:3])
            d_mlp = gate.shape[0] if isinstance(gate, Operator) else gate.out_features
            found.append(GatedMLP(name, gates, ups, downs, d_mlp))
    if not found:
        raise BadInput(
            f"a {type(model).__name__} has no MLP of {', '.join(PARTS)}: CATS, GRIFFIN and "
            "ReLUfication skip neurons of such MLPs"
        )
    return found


def activation(model: nn.Module, name: str) -> nn.Module:
    """Of the named MLP."""
    return module(model, name).get_submodule("act_fn")


@contextmanager
def activations(model: nn.Module, put: Mapping[str, nn.Module]) -> Iterator[None]:
    """Other activations in the named MLPs, and back."""
    before = {name: activation(model, name) for name in put}
    try:
        for name, act in put.items():
            module(model, name).set_submodule("act_fn", act)
        yield
    finally:
        for name, act in before.items():
            module(model, name).set_submodule("act_fn", act)


def neurons(
    mlps: list[GatedMLP],
    shapes: Mapping[str, tuple[int, int]],
    read: float,
    *,
    skipped: tuple[str, ...],
) -> float:
    """p: the share of neurons that can be read where all linears together may read `read`.

    Linears named in `shapes` but not among the `skipped` parts ("gate", "up", "down") of an MLP
    are read whole; the others are read at p: read Σ d_out d_in = whole + p Σ skipped.
    Raises BadInput where what is read whole exceeds the budget alone.
    """
    size = {name: d_out * d_in for name, (d_out, d_in) in shapes.items()}
    part = sum(size[getattr(mlp, role)] for mlp in mlps for role in skipped)
    total = sum(size.values())
    share = (read * total - (total - part)) / part
    if share < 0:
        raise BadInput(
            f"a budget of {read:.4g} of the bytes: {1 - part / total:.4g} of them are read by what "
            f"is never skipped; raise the budget"
        )
    return min(share, 1.0)
