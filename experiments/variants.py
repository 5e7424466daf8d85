"""OATS' terms, apart and replaced: the operators that `terms` swaps in, from one calibration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from bridge import controls
from bridge.compress import compress
from bridge.compression import restore
from bridge.heads import of_heads
from bridge.methods.oats import OATS, scale
from bridge.methods.wanda import Wanda
from bridge.operators import Dense, LinearOperator, LowRank, Sparse, Sum, Weight
from bridge.patterns import RowWise
from bridge.sites import linears
from bridge.statistics import Moment, Statistic, diagonal_moment
from experiments import measure, naming
from experiments.progress import Progress
from experiments.where import Where
from mech.errors import BadInput


class Matrix(NamedTuple):
    """One calibrated linear: its weight, what it read, and OATS' two terms for it.

    inside: the entries that a variant may change; the rest stays dense. None: all of them.
    """

    weight: Weight
    seen: Moment
    sparse: Sparse
    low: LowRank
    inside: Bool[Tensor, "d_out d_in"] | None

    @property
    def columns(self) -> Float[Tensor, " d_in"]:
        """D = diag √E[x²], as OATS takes it."""
        return scale(self.seen).to(self.weight.device)


Variant = Callable[[Matrix, torch.Generator], LinearOperator]

TERMS: dict[str, Variant] = {
    naming.BOTH: lambda m, _: Sum([m.sparse, m.low]),
    naming.SPARSE: lambda m, _: m.sparse,
    naming.LOW: lambda m, _: m.low,
    naming.NEITHER: lambda m, _: Dense(torch.zeros_like(m.weight)),
    naming.PLAIN: lambda m, _: controls.sparse_like(m.sparse, m.weight, m.seen),
    naming.RANDOM: lambda m, g: Sum([m.sparse, _random_like(m, g)]),
    naming.OUTPUTS: lambda m, g: Sum([m.sparse, _permuted(m, g, "left")]),
    naming.INPUTS: lambda m, g: Sum([m.sparse, _permuted(m, g, "right")]),
}
DIRECTIONS: dict[str, Variant] = {
    naming.TOP: lambda m, _: controls.without_top(m.weight, 1, scale=m.columns),
    naming.PROJECTION: lambda m, g: controls.without_random_outputs(m.weight, 4, g),
    naming.NORM: lambda m, g: _without_random(m, g),
}
AS_FAR: dict[str, Variant] = {
    naming.AS_FAR: lambda m, _: controls.sparse_as_far(m.sparse.dense(), m.weight, m.seen),
}


def at_density(density: float) -> dict[str, Variant]:
    """Plain Wanda that keeps this share of every row."""
    method = Wanda(RowWise(density))
    return {naming.wanda(density): lambda m, _: method(m.weight, m.seen)}


def _random_like(matrix: Matrix, generator: torch.Generator) -> LowRank:
    return controls.random_low_rank_like(matrix.low, generator, scale=matrix.columns)


def _permuted(matrix: Matrix, generator: torch.Generator, side: Any) -> LowRank:
    return controls.permuted_like(matrix.low, generator, side=side, scale=matrix.columns)


def _without_random(matrix: Matrix, generator: torch.Generator) -> Dense:
    """As much of the scaled norm gone as `without_top` takes, in one random direction."""
    top = matrix.weight - controls.without_top(matrix.weight, 1, scale=matrix.columns).dense()
    u, s, v = torch.linalg.svd(top.double() * matrix.columns.double(), full_matrices=False)
    like = LowRank(u[:, :1] * s[0], v[:1] / matrix.columns.double())
    noise = controls.random_low_rank_like(like, generator, scale=matrix.columns)
    return Dense((matrix.weight.double() - noise.dense()).to(matrix.weight.dtype))


@dataclass(frozen=True)
class _Remembering:
    """A method that compresses as OATS does and keeps weight, moment and terms of every matrix."""

    oats: OATS
    kept: list[Matrix] = field(default_factory=list)
    statistic: ClassVar[Statistic[Moment]] = diagonal_moment

    def __call__(self, weight: Weight, seen: Moment) -> LinearOperator:
        operator = self.oats(weight, seen)
        sparse, low = _terms(operator)
        self.kept.append(Matrix(weight, seen, sparse, low, None))
        return operator


def _terms(operator: LinearOperator) -> tuple[Sparse, LowRank]:
    """The two terms of OATS' operator."""
    parts: list[Any] = operator.each() if isinstance(operator, Sum) else []
    sparse, low = parts
    return sparse, low


def calibrated(
    model: PreTrainedModel,
    oats: OATS,
    where: Where,
    material: measure.Material,
    progress: Progress,
) -> dict[str, Matrix]:
    """Every chosen linear, by name; the model is dense again afterwards.

    Raises:
        BadInput: `where` chooses nothing, heads that are not there, or a fused matrix, whose
            parts OATS takes one by one.
        BadOption: as `Where.names` does.
    """
    names, found = where.names(model), linears(model, where.select)
    inside = {name: _inside(model, name, found[name].weight, where.heads) for name in names}
    method = _Remembering(oats)
    with progress.task("calibrate", len(names)) as advance:
        done = compress(
            model,
            dict.fromkeys(names, method),
            material.calibration.split(measure.AT_ONCE),
            advance=advance,
        )
    restore(model, done)
    if len(method.kept) != len(names):
        raise BadInput(
            f"{where.select!r} matches fused matrices, whose parts are compressed one by one; "
            "choose matrices that are not fused"
        )
    return {
        name: matrix._replace(inside=inside[name])
        for name, matrix in zip(names, method.kept, strict=True)
    }


def _inside(model: PreTrainedModel, name: str, weight: Tensor, heads: Sequence[int]) -> Any:
    if not heads:
        return None
    return of_heads(model, name, (weight.shape[0], weight.shape[1]), heads).to(weight.device)


def operators(
    matrices: dict[str, Matrix], variant: Variant, seed: int
) -> tuple[dict[str, LinearOperator], float]:
    """The variant of every matrix, and the mean over them of the scaled share that it removes."""
    generator = torch.Generator().manual_seed(seed)
    made, gone = {}, []
    for name, matrix in matrices.items():
        operator = variant(matrix, generator)
        if matrix.inside is not None:
            operator = Dense(torch.where(matrix.inside, operator.dense(), matrix.weight))
        made[name] = operator
        gone.append(controls.removed(operator.dense(), matrix.weight, scale=matrix.columns))
    return made, sum(gone) / len(gone)
