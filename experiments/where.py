"""Which matrices, and which heads of them, by layer and projection."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from experiments.settings import BadOption

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from torch import nn

Projection = Literal["q", "k", "v", "o", "mlp"]


@dataclass(frozen=True)
class Where:
    """Of the linears that a glob selects, those of some layers, projections and heads."""

    select: str = "*.self_attn.[qk]_proj"
    """Which linears, as a glob."""
    layers: tuple[int, ...] = ()
    """Only in these layers; default: all."""
    projections: tuple[Projection, ...] = ()
    """Only these projections; default: all that --select has."""
    heads: tuple[int, ...] = ()
    """Only these heads' rows (columns of o): query heads in q and o, key heads in k and v."""

    def names(self, model: "nn.Module") -> list[str]:
        """The linears, in order of depth.

        Raises:
            BadInput: the glob matches nothing.
            BadOption: it does, and layers or projections leave nothing of it.
        """
        from bridge.heads import PROJECTIONS
        from bridge.sites import block_of, linears

        wanted = {name for role in self.projections for name in PROJECTIONS[role]}
        names = [
            name
            for name in linears(model, self.select)
            if (not self.layers or block_of(name) in self.layers)
            and (not wanted or name.rsplit(".", 1)[-1] in wanted)
        ]
        if not names:
            raise BadOption(
                f"--layers, --projections: of {self.select} no linear is left in layers "
                f"{self.layers or 'all'}, projections {self.projections or 'all'}"
            )
        return names

    def __str__(self) -> str:
        parts = [self.select]
        for name, chosen in (("layer", self.layers), ("head", self.heads)):
            if chosen:
                parts.append(f"{name} {', '.join(map(str, chosen))}")
        if self.projections:
            parts.insert(1, ", ".join(self.projections))
        return "; ".join(parts)
