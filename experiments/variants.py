"""OATS' terms, apart and replaced: the operators that `terms` swaps in, from one calibration."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from transformers import PreTrainedModel

from bridge.compress import compress
from bridge.compression import restore
from bridge.controls import random_low_rank_like, sparse_like
from bridge.methods import OATS
from bridge.methods.oats import scale
from bridge.operators import LinearOperator, LowRank, Sparse, Sum, Weight
from bridge.sites import linears
from bridge.statistics import Moment, Statistic, diagonal_moment
from experiments import measure, roster
from experiments.progress import Progress
from experiments.terms import BOTH, LOW, PLAIN, RANDOM, SPARSE
from mech.errors import BadInput

if TYPE_CHECKING:
    from experiments.terms import Config


@dataclass(frozen=True)
class _Remembering:
    """A method that compresses as OATS does and keeps the variants of every matrix."""

    oats: OATS
    generator: torch.Generator
    kept: list[dict[str, LinearOperator]] = field(default_factory=list)
    statistic: ClassVar[Statistic[Moment]] = diagonal_moment

    def __call__(self, weight: Weight, seen: Moment) -> LinearOperator:
        operator = self.oats(weight, seen)
        sparse, low = _terms(operator)
        columns = scale(seen).to(weight.device)
        random = random_low_rank_like(low, self.generator, scale=columns)
        self.kept.append(
            {
                BOTH: operator,
                SPARSE: sparse,
                LOW: low,
                PLAIN: sparse_like(sparse, weight, seen),
                RANDOM: Sum([sparse, random]),
            }
        )
        return operator


def _terms(operator: LinearOperator) -> tuple[Sparse, LowRank]:
    """The two terms of OATS' operator."""
    parts: list[Any] = operator.each() if isinstance(operator, Sum) else []
    sparse, low = parts
    return sparse, low


def calibrated(
    config: "Config", model: PreTrainedModel, material: measure.Material, progress: Progress
) -> dict[str, dict[str, LinearOperator]]:
    """Variant -> linear's name -> operator; the model is dense again afterwards.

    Raises:
        BadInput: `config.select` matches nothing, or a fused matrix, whose parts OATS takes one
            by one.
    """
    method = _Remembering(roster.oats(config.budget), torch.Generator().manual_seed(config.seed))
    names = list(linears(model, config.select))
    with progress.task("calibrate", len(names)) as advance:
        done = compress(
            model,
            method,
            material.calibration.split(measure.AT_ONCE),
            select=config.select,
            advance=advance,
        )
    restore(model, done)
    if len(method.kept) != len(names):
        raise BadInput(
            f"{config.select!r} matches fused matrices, whose parts are compressed one by one; "
            "choose matrices that are not fused"
        )
    return {
        variant: {name: kept[variant] for name, kept in zip(names, method.kept, strict=True)}
        for variant in method.kept[0]
    }
