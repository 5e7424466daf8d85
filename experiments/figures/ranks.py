"""The singular values of W_V and W_Q W_K over training: when does low rank form?"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from experiments import law_matrices
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section
from experiments.settings import SEEDS, BadOption, multiple, within
from experiments.toy_laws import CHECKPOINTS

if TYPE_CHECKING:
    from toy.laws.ranks import Ranks
    from toy.train import History, Recipe


@dataclass(frozen=True)
class Config:
    """Train the default recipe and keep the singular values on the way."""

    seeds: int = 32
    """Initialisations; those that find the mechanism are shown."""
    steps: int = 4000
    """Minibatches; a multiple of 40."""
    seed: int = 0
    """What all randomness is derived from."""


@dataclass(frozen=True)
class Result:
    """The seeds that found the mechanism: their history and what their matrices have become."""

    config: Config
    inputs: Inputs
    recipe: "Recipe"
    history: "History"
    ranks: "Ranks"
    found: int


def run(config: Config, progress: Progress) -> Result:
    """Train, keep what found the mechanism, and look at its matrices.

    Raises:
        BadOption: no seed found it, or sizes that train nothing.
    """
    from toy.diagnose import diagnose
    from toy.laws.ranks import ranks
    from toy.train import History, Recipe, train

    within("seeds", config.seeds, 1, 1000)
    multiple("steps", config.steps, CHECKPOINTS)
    within("seed", config.seed, 0, SEEDS)
    recipe = replace(
        Recipe(), seeds=config.seeds, steps=config.steps, seed=config.seed, checkpoints=CHECKPOINTS
    )
    with progress.task(f"train {recipe.seeds} seeds", CHECKPOINTS) as advance:
        trained = train(recipe, advance=lambda step: advance(f"step {step}"))
    found = diagnose(trained, sequences=1024).found
    if not found.any():
        raise BadOption(
            f"--seeds {config.seeds} --steps {config.steps}: no seed found the mechanism, "
            "so that there is nothing to study: give more"
        )
    seen = ranks(trained, found, seed=config.seed)
    history = History(trained.history.step, *(np.asarray(f)[found] for f in trained.history[1:]))
    return Result(config, Inputs(dtype="float32"), recipe, history, seen, int(found.sum()))


def sections(result: Result) -> list[Section]:
    """The section on rank of the laws of training."""
    return [law_matrices.ranks(result.ranks, result.history, result.found, result.config.seeds)]
