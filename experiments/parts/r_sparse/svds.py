"""Recipes whose plain SVDs are taken once a linear: singular vectors are nested over ranks."""

from dataclasses import dataclass, field

from torch import Tensor

from bridge.decode.factors import down_up
from bridge.decode.places import planned
from bridge.decode.plan import Plan
from bridge.decode.recipe import Recipe, likeness
from experiments.decoding.activation_ways import Given

MOST = 0.1
"""Share of a linear's numbers that kept factors take at least: what R-Sparse asks for and more."""


@dataclass(frozen=True)
class Once(Given):
    """As `Given`, for many sparsities of the same model."""

    pairs: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def fitted(self, plan: Plan) -> Recipe:
        """A recipe of the plan, settled; `fit` with factors cut from those of a larger rank."""
        inputs = self.inputs()
        found = planned(self.model, plan)
        thresholds, down, up = {}, {}, {}
        for name, linear in found.items():
            weight, setting = linear.weight.detach(), plan[name]
            thresholds[name] = inputs.thresholds(name, weight, setting)
            if rank := setting.rank(*weight.shape):
                if setting.factors == "svd":
                    pair = self._svd(name, weight, rank)
                else:
                    rows = inputs.rows(name)
                    pair = down_up(weight.cpu(), rank, "moment", rows, thresholds[name])
                down[name], up[name] = (part.to(weight.dtype) for part in pair)
        of = {name: likeness(linear.weight) for name, linear in found.items()}
        return self.settling.recipe(Recipe(dict(plan), thresholds, down, up, of))

    def _svd(self, name: str, weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        kept = self.pairs.get(name)
        if kept is None or kept[0].shape[1] < rank:
            d_out, d_in = weight.shape
            most = max(rank, int(MOST * d_out * d_in / (d_out + d_in)))
            self.pairs[name] = kept = down_up(weight.cpu(), most, "svd")
        return kept[0][:, :rank].contiguous(), kept[1][:rank].contiguous()
