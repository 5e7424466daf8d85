"""What follows for training from the theorem, and what training does: laws against measurements."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments import law_matrices, law_sections
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section
from experiments.settings import SEEDS, BadOption, multiple, within

if TYPE_CHECKING:  # jax is imported when the question is asked, not for --help
    from toy.laws.compressed import Study
    from toy.laws.frontier import Frontier
    from toy.laws.growth import Growth
    from toy.laws.lengths import Lengths
    from toy.laws.ranks import Ranks
    from toy.laws.typical import Typical
    from toy.train import History, Recipe


SCALES = {
    "uniform": (8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0, 36.0, 40.0),
    "gaussian": (8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0, 36.0, 40.0),
    "laplace": (10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0, 100.0),
}
TYPICAL = (12.0, 16.0, 20.0, 24.0, 32.0, 40.0)
CHECKPOINTS = 40
GROWN = (  # optimiser, its constant step size, tail
    ("adam", 1e-2, "uniform"),
    ("adam", 1e-2, "gaussian"),
    ("adam", 1e-2, "laplace"),
    ("sign", 3e-3, "uniform"),
    ("sign", 3e-3, "gaussian"),
    ("sgd", 2e-2, "uniform"),
)
SHOWN = 8
"""Trained seeds whose lengths and compressions are measured."""


@dataclass(frozen=True)
class Config:
    """Hold the laws of training against measurements."""

    sequences: int = 20_000
    """Sequences a loss frontier is measured on."""
    seeds: int = 16
    """Seeds of the default recipe whose matrices are studied; half as many grow under each rule."""
    steps: int = 4000
    """Minibatches of each training; a multiple of 40."""
    seed: int = 0
    """What all randomness is derived from."""


@dataclass(frozen=True)
class Result:
    """Everything measured, beside what was predicted."""

    config: Config
    inputs: Inputs
    frontiers: "list[Frontier]"
    typical: "list[Typical]"
    growths: "list[Growth]"
    recipe: "Recipe"
    history: "History"  # of the seeds that found the mechanism, as all below
    found: int
    ranks: "Ranks"
    lengths: "Lengths"
    trained: "Study"
    theorem: "Study"


def run(config: Config, progress: Progress) -> Result:
    """Measure every law.

    Raises:
        BadOption: see `check`, or no seed found the mechanism.
    """
    import numpy as np

    from toy.laws.frontier import frontier
    from toy.laws.typical import typical

    check(config)
    frontiers, typicals = [], []
    with progress.task("loss frontier", len(SCALES)) as advance:
        for tail, scales in SCALES.items():
            frontiers.append(
                frontier(tail, np.array(scales), sequences=config.sequences, seed=config.seed)
            )
            typicals.append(typical(tail, np.array(TYPICAL), seed=config.seed))
            advance(tail)
    growths = _grow(config, progress)
    return _matrices(config, progress, frontiers, typicals, growths)


def _grow(config: Config, progress: Progress) -> "list[Growth]":
    from dataclasses import replace

    from toy.diagnose import SINK, diagnose
    from toy.laws.growth import NEAR, growth
    from toy.train import Recipe, train

    growths = []
    with progress.task("growth of s_tag", len(GROWN)) as advance:
        for rule, rate, tail in GROWN:
            start = NEAR if rule == "sgd" else Recipe()
            recipe = replace(
                start,
                optimizer=rule,
                learning_rate=rate,
                data=tail,
                schedule="constant",
                steps=config.steps,
                checkpoints=CHECKPOINTS,
                seeds=max(1, config.seeds // 2),
                seed=config.seed,
            )
            trained = train(recipe)
            seen = diagnose(trained, sequences=1024)
            growths.append(growth(trained, seen.finite & (seen.sink > SINK), seen.fvu))
            advance(f"{rule}, {tail}")
    return growths


def _matrices(
    config: Config,
    progress: Progress,
    frontiers: "list[Frontier]",
    typicals: "list[Typical]",
    growths: "list[Growth]",
) -> Result:
    from dataclasses import replace

    import numpy as np

    from toy.diagnose import diagnose
    from toy.laws.compressed import constructed, study
    from toy.laws.lengths import lengths
    from toy.laws.ranks import ranks
    from toy.train import History, Recipe, train
    from toy.transformer import Weights

    recipe = replace(
        Recipe(), seeds=config.seeds, steps=config.steps, seed=config.seed, checkpoints=CHECKPOINTS
    )
    with progress.task("matrices", 5) as advance:
        trained = train(recipe)
        advance("trained")
        found = diagnose(trained, sequences=1024).found
        if not found.any():
            raise BadOption(
                f"--seeds {config.seeds} --steps {config.steps}: no seed found the mechanism, "
                "so that there is nothing to study: give more"
            )
        few = Weights(*(np.asarray(field)[found][:SHOWN] for field in trained.weights))
        of_ranks = ranks(trained, found, seed=config.seed)
        advance("ranks")
        of_lengths = lengths(few, seed=config.seed)
        advance("lengths")
        of_trained = study(few, tail=recipe.data, seed=config.seed)
        advance("compressed")
        of_theorem = study(constructed(SHOWN, seed=config.seed), tail="uniform", seed=config.seed)
        advance("the theorem compressed")
    history = History(trained.history.step, *(field[found] for field in trained.history[1:]))
    return Result(
        config,
        Inputs(device="cpu", dtype="float64; training float32"),
        frontiers,
        typicals,
        growths,
        recipe,
        history,
        int(found.sum()),
        of_ranks,
        of_lengths,
        of_trained,
        of_theorem,
    )


def check(config: Config) -> None:
    """Refuse sizes that measure nothing, before any work is done for them.

    Raises:
        BadOption: one of them.
    """
    within("sequences", config.sequences, 100, 1_000_000)
    within("seeds", config.seeds, 1, 1000)
    multiple("steps", config.steps, CHECKPOINTS)
    within("seed", config.seed, 0, SEEDS)


def sections(result: Result) -> list[Section]:
    """One section a law."""
    return [
        law_sections.frontier(result.frontiers),
        law_sections.growth(result.growths, result.frontiers),
        law_sections.lengths(result.lengths),
        law_matrices.ranks(result.ranks, result.history, result.found, result.config.seeds),
        law_matrices.compression(result.trained, result.theorem),
        law_sections.typical(result.typical),
    ]
