"""Which linears of a model a compression replaces, and by which methods."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import nn

from bridge.component import Component, components
from bridge.method import AnyMethod, ComponentMethod, Method
from bridge.sites import block_of, linears, matching
from mech.blocks import decoder_blocks


class Work(NamedTuple):
    """Linears by name, and their methods: of each linear alone, or of whole components."""

    linears: dict[str, nn.Linear]
    methods: Mapping[str, Method]
    component_method: ComponentMethod | None
    components: Sequence[Component]

    def of(self, layer: int) -> "Work":
        """What of it is in one block."""
        here = {name: linear for name, linear in self.linears.items() if block_of(name) == layer}
        parts = [component for component in self.components if component.layer == layer]
        return Work(here, self.methods, self.component_method, parts)

    def again(self, model: nn.Module, layer: int) -> "Work":
        """`of`, with what stands in the model now."""
        here = self.of(layer)
        blocks = decoder_blocks(model)
        at = {n: blocks.get_submodule(n.removeprefix("layers.")) for n in here.linears}
        linears = {name: linear for name, linear in at.items() if isinstance(linear, nn.Linear)}
        return here._replace(linears=linears)


def work(model: nn.Module, method: AnyMethod, select: str) -> Work:
    """All that `method` replaces of what `select` matches.

    Raises BadInput, with the nearest names, where `select` or a name of `method` matches nothing.
    """
    if isinstance(method, ComponentMethod):
        found = components(model, select)
        named = {c.names[role]: c.linears[role] for c in found for role in c.names}
        known = linears(model, select)
        chosen = {name: linear for name, linear in known.items() if name in named}
        return Work(chosen, {}, method, found)
    chosen = linears(model, select)
    if isinstance(method, Method):
        return Work(chosen, dict.fromkeys(chosen, method), None, ())
    for name in method:
        if name not in chosen:
            matching(chosen, name, "linear")
    return Work({n: linear for n, linear in chosen.items() if n in method}, method, None, ())
