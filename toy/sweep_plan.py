"""What a sweep trains: its cells, where their seeds start, and the batches they are trained in."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np

from toy.errors import Refused
from toy.optimizers import Optimizer
from toy.recipe import PRESETS, Recipe
from toy.tasks import Distribution
from toy.train import drawn
from toy.transformer import Weights

RATES: Mapping[Optimizer, float] = {
    "adam": 3e-2, "adamw": 3e-2, "sgd": 3e-2, "sign": 1e-2, "muon": 2e-2,
}  # fmt: skip
"""Step sizes of a sweep; a cosine takes each to 0."""


@dataclass(frozen=True)
class Plan:
    """What is trained: every initialisation by every optimiser on every tail, `seeds` times."""

    initialisations: tuple[str, ...] = ("diagonal", "default-init", "tagged")
    """Names in `starts`."""
    s_tag: float = 4.0
    """Where s_tag starts in `tagged`, whose matrices start as in default-init."""
    s_num_noise: float = 0.1
    """Standard deviation of s_num around 0 in `tagged`."""
    optimizers: tuple[Optimizer, ...] = ("adam", "adamw", "sgd", "sign", "muon")
    """Update rules."""
    data: tuple[Distribution, ...] = ("gaussian", "uniform", "laplace")
    """Tails of the numbers."""
    seeds: int = 64
    """Initial draws a cell; the same in every cell."""
    steps: int = 2000
    """Minibatches."""
    batch: int = 64
    """Sequences a minibatch."""
    checkpoints: int = 20
    """Points at which the history is recorded and the state may be written."""
    shortest: int = 16
    """Shortest sequence."""
    longest: int = 32
    """Longest sequence."""
    seed: int = 0
    """What all randomness is derived from."""
    lanes: int = 256
    """Seeds trained side by side."""


class Cell(NamedTuple):
    """One entry of the result's table."""

    initialisation: str
    optimizer: Optimizer
    data: Distribution


class Group(NamedTuple):
    """Seeds that one computation trains: a part of those that share optimiser and data."""

    number: int
    optimizer: Optimizer
    data: Distribution
    part: slice  # of (initialisation, seed), seed fastest


def starts(plan: Plan) -> dict[str, Recipe]:
    """The named initialisations: the presets, and default-init with a given s_tag and s_num."""
    tagged = replace(
        PRESETS["default-init"],
        s_tag=plan.s_tag, s_tag_noise=0.0, s_num_noise=plan.s_num_noise,
    )  # fmt: skip
    return {"diagonal": PRESETS["diagonal"], "default-init": PRESETS["default-init"]} | {
        "tagged": tagged
    }


def recipe_of(plan: Plan, optimizer: Optimizer, data: Distribution) -> Recipe:
    """What all seeds that share optimiser and data are trained by."""
    return Recipe(
        data=data,
        shortest=plan.shortest,
        longest=plan.longest,
        optimizer=optimizer,
        learning_rate=RATES[optimizer],
        steps=plan.steps,
        batch=plan.batch,
        seeds=plan.seeds,
        seed=plan.seed,
        checkpoints=plan.checkpoints,
    )


def initial(plan: Plan) -> Weights:
    """Where every seed of every initialisation starts: (initialisation, seed), seed fastest.

    Raises `Refused` for an initialisation that has no name in `starts`.
    """
    known = starts(plan)
    if strange := set(plan.initialisations) - set(known):
        raise Refused(f"no initialisation {min(strange)!r}: choose from {', '.join(known)}")
    each = [
        drawn(replace(known[name], seeds=plan.seeds, seed=plan.seed))
        for name in plan.initialisations
    ]
    return Weights(
        *(np.concatenate([np.asarray(w) for w in field]) for field in zip(*each, strict=True))
    )


def groups(plan: Plan) -> list[Group]:
    """The computations of the plan, in their order."""
    n = len(plan.initialisations) * plan.seeds
    parts = [slice(at, min(at + plan.lanes, n)) for at in range(0, n, plan.lanes)]
    every = product(plan.optimizers, plan.data, parts)
    return [Group(number, *what) for number, what in enumerate(every)]
