"""What a model needs to decode sparsely: thresholds and factors, with the model they are of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bridge.decode.factors import down_up
from bridge.decode.places import planned
from bridge.decode.plan import Plan, Setting, read_share
from bridge.sites import linears
from mech.errors import BadInput

Vector = Float[Tensor, " _size"]
Factor = Float[Tensor, "_rows _columns"]  # sizes differ from linear to linear


@dataclass(frozen=True)
class Recipe:
    """By name: a setting, t [d_in], B = `down`ᵀ and A = `up`ᵀ where the rank is above 0, a bias.

    y = W (m ∘ x) + A B ((1 - m) ∘ x) + bias, m_j = 1 where |x_j| > t_j. `bias` [d_out] is what is
    added for what the mask leaves out (its mean), beside the linear's own; names without one
    have none. `likeness` says of which weights the recipe is: `likeness(weight)` by name.
    """

    plan: Mapping[str, Setting]
    thresholds: Mapping[str, Vector]
    down: Mapping[str, Factor]
    up: Mapping[str, Factor]
    likeness: Mapping[str, Vector]
    bias: Mapping[str, Vector] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def check(self, model: nn.Module) -> dict[str, nn.Linear]:
        """The linears that the recipe is of, by name. Raises BadInput where they are others."""
        found = planned(model, self.plan)
        for name, linear in found.items():
            if not alike(likeness(linear.weight), self.likeness[name]):
                raise BadInput(
                    f"{name}: the recipe is of other weights than this model's; "
                    "fit one for this model (ctr sparsify)"
                )
        return found

    def save(self, folder: Path | str) -> Path:
        """Write a new folder, whole or not at all: recipe.json and tensors.safetensors.

        Raises BadInput where the folder exists, OSError where the disk refuses.
        """
        from bridge.decode.recipe_file import save

        return save(self, folder)

    @classmethod
    def load(cls, folder: Path | str) -> "Recipe":
        """What was saved. Raises BadInput, naming the file, where that is not what lies there."""
        from bridge.decode.recipe_file import load

        return load(folder)

    def read_share(self, model: nn.Module) -> float:
        """Numbers read a token over those of all dense linears of the blocks and the plan."""
        return read_share(self.plan, shapes(model, self.plan))


SAMPLED = 64


def likeness(weight: Float[Tensor, "d_out d_in"]) -> Vector:
    """d_out, d_in, ‖W‖ and 64 entries of W spread over it: the same in every float format.

    A hash would take a recipe that was fitted in float32 for another model's in bfloat16.
    """
    d_out, d_in = weight.shape
    # A prime step meets every part of rows and columns; products of sizes stay below 2^63.
    flat = torch.arange(SAMPLED) * 2654435761 % (d_out * d_in)
    some = weight.detach()[flat // d_in, flat % d_in].float().cpu()
    norm = torch.linalg.vector_norm(weight.detach().float()).cpu()
    return torch.cat([torch.tensor([d_out, d_in]).float(), norm[None], some])


def alike(a: Vector, b: Vector) -> bool:
    """Whether two likenesses can be of the same weights in different float formats.

    bfloat16 moves a number by 2^-9 of itself, float16 a small one by 2^-25; both are allowed
    twice over, the latter as a thousandth of the root mean square.
    """
    if a.shape != b.shape or not torch.equal(a[:2], b[:2]):
        return False
    typical = b[2] / (b[0] * b[1]).sqrt()
    return bool(((a - b)[2:].abs() <= 2.0**-8 * b[2:].abs() + 1e-3 * typical).all())


def shapes(model: nn.Module, plan: Plan) -> dict[str, tuple[int, int]]:
    """(d_out, d_in) of every linear of the blocks, and of the head where the plan has it."""
    names = dict.fromkeys([*linears(model), *plan])
    return {n: (m.out_features, m.in_features) for n, m in planned(model, names).items()}


@runtime_checkable
class Calibrated(Protocol):
    """What `fit` asks of a calibration: `Inputs`, or `Streamed` where no rows fit."""

    def rows(self, name: str) -> Float[Tensor, "tokens d_in"]: ...

    def thresholds(
        self, name: str, weight: Float[Tensor, "d_out d_in"], setting: Setting
    ) -> Vector: ...


def fit(
    model: nn.Module,
    plan: Plan,
    inputs: Calibrated,
    *,
    provenance: Mapping[str, Any] | None = None,
    advance: Callable[[str], None] | None = None,
) -> Recipe:
    """Thresholds by the quantiles of `inputs`, factors of the remainder, for every linear planned.

    Factors take the dtype of the weight, so that a number costs what the budget says. Raises
    BadInput where the plan names what the model or the inputs do not have.
    """
    thresholds: dict[str, Tensor] = {}
    down: dict[str, Tensor] = {}
    up: dict[str, Tensor] = {}
    found = planned(model, plan)
    for name, linear in found.items():
        weight, setting = linear.weight.detach(), plan[name]
        thresholds[name] = inputs.thresholds(name, weight, setting)
        rank = setting.rank(*weight.shape)
        if rank:
            x = inputs.rows(name) if setting.factors == "moment" else None
            pair = down_up(weight.cpu(), rank, setting.factors, x, thresholds[name])
            down[name], up[name] = (part.to(weight.dtype) for part in pair)
        if advance is not None:
            advance(name)
    of = {name: likeness(linear.weight) for name, linear in found.items()}
    return Recipe(dict(plan), thresholds, down, up, of, provenance=dict(provenance or {}))
