"""Toy beside language model, by the same measures: are sink heads of lower rank than others?

Effective rank, stable rank and the number of directions with 90% of the energy, of W_Q W_Kᵀ and
W_V W_O: measures of what a head computes, unchanged by any invertible change of basis inside the
head and, with the input norm's gain in the matrices, by how gain and weights share their scale.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from experiments import worlds_gauge
from experiments.intervals import Interval, interval
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section
from experiments.settings import SEEDS, Reading, Sizes, between, multiple, within
from experiments.toy_larger import CHECKPOINTS

if TYPE_CHECKING:  # torch and jax are imported when the question is asked, not for --help
    from experiments.worlds_read import World


FEWEST = 4  # groups: a bootstrap over fewer has an interval that means nothing


@dataclass(frozen=True)
class Config:
    """Read a model and three toys with the same probes."""

    reading: Reading = field(default_factory=Reading)
    sequences: int = 16
    """Sequences of the text to find sink heads on."""
    seq: int = 128
    """Tokens of such a sequence, at least 64."""
    epsilon: float = 0.3
    """A head is a sink head when it gives the sink more than this share on average."""
    seeds: int = 16
    """Trained toys; those that find the mechanism are read."""
    larger_seeds: int = 4
    """Trained ordinary transformers."""
    larger_steps: int = 1000
    """Minibatches of those; a multiple of 20."""
    seed: int = 0
    """What all randomness is derived from."""


@dataclass(frozen=True)
class Result:
    """Every world, and how far a change of gauge moves each measure of the model's heads."""

    config: Config
    inputs: Inputs
    worlds: "list[World]"
    moved: "dict[str, worlds_gauge.Moved]"
    found: int


def run(config: Config, progress: Progress) -> Result:
    """Train the toys, read the model, change the gauge.

    Raises:
        BadOption: sizes that measure nothing.
        BadInput: a model or a text that cannot be read.
    """
    from experiments import measure, worlds_read

    between("epsilon", config.epsilon, 0, 1)
    within("seeds", config.seeds, 2, 1000)
    within("larger-seeds", config.larger_seeds, 2, 100)
    multiple("larger-steps", config.larger_steps, CHECKPOINTS)
    within("seed", config.seed, 0, SEEDS)
    sizes = Sizes(1, 2, config.seq, config.sequences, config.seq)
    loaded = measure.loaded_model(config.reading, progress)
    material = measure.material(loaded, config.reading, sizes, progress)
    groups = len(material.sequences.split(measure.AT_ONCE))
    with progress.task("read every head", groups) as advance:
        model = worlds_read.language_model(
            loaded, material.sequences, measure.AT_ONCE, advance, config.seed
        )
    moved = worlds_gauge.moved(loaded.model, config.seed)
    trained, found = _trained(config, progress)
    larger = _larger(config, progress)
    worlds = [worlds_read.theorem(config.seed), trained, larger, model]
    return Result(config, material.inputs, worlds, moved, found)


def _trained(config: Config, progress: Progress) -> "tuple[World, int]":
    from dataclasses import replace

    from experiments.worlds_read import trained
    from toy.diagnose import diagnose
    from toy.train import PRESETS, train

    recipe = replace(PRESETS["guided"], seeds=config.seeds, seed=config.seed)
    with progress.task(f"train {config.seeds} seeds", recipe.checkpoints) as advance:
        done = train(recipe, advance=lambda step: advance(f"step {step}"))
    found = np.flatnonzero(diagnose(done, sequences=1024).found)
    return trained(done, found.tolist(), config.seed), len(found)


def _larger(config: Config, progress: Progress) -> "World":
    from experiments.toy_larger import Config as Larger
    from experiments.toy_larger import as_recipe
    from experiments.worlds_read import larger
    from toy.larger.train import train

    recipe = as_recipe(
        Larger(seeds=config.larger_seeds, steps=config.larger_steps, seed=config.seed, heads=4)
    )
    with progress.task(f"train {config.larger_seeds} ordinary ones", recipe.checkpoints) as advance:
        done = train(recipe, advance=lambda step: advance(f"step {step}"))
    return larger(done, config.seed)


def is_sink(world: "World", epsilon: float) -> Bool[np.ndarray, " head"]:
    """The heads that give the sink more than epsilon of their attention."""
    return world.mass > epsilon


def paired(world: "World", values: Float[np.ndarray, " head"], epsilon: float) -> Interval | None:
    """Mean over groups of (mean over sink heads − mean over the others) of the same group.

    None with fewer than FEWEST groups that have both: layers differ in more than their sinks,
    so heads are compared within a layer (a toy's within a seed), and the layers are the units.
    """
    sink = is_sink(world, epsilon)
    differences = []
    for group in np.unique(world.group):
        here = world.group == group
        some, others = values[here & sink], values[here & ~sink]
        if len(some) and len(others):
            differences.append(some.mean() - others.mean())
    return interval(np.array(differences)) if len(differences) >= FEWEST else None


def sections(result: Result) -> list[Section]:
    """One table of the worlds, one of their ranks, one of gauges, and two scatter plots."""
    from experiments import worlds_sections

    return worlds_sections.sections(result)
