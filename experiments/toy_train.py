"""Does training find catch, tag, release? Many seeds of one recipe, side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from experiments import pictures
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Picture, Section, Table
from experiments.settings import SEEDS, BadOption, between, multiple, within

if TYPE_CHECKING:  # jax is imported when the question is asked, not for --help
    from toy.diagnose import Diagnosis
    from toy.train import History, Recipe


LOW = 0.1  # second over first singular value
CHECKPOINTS = 40  # of every preset
MOST = 10_000  # seeds side by side: a gigabyte


@dataclass(frozen=True)
class Config:
    """Train the averaging transformer from many initialisations."""

    preset: Literal["diagonal", "default-init", "guided"] = "diagonal"
    """diagonal finds the mechanism; default-init, plain Gaussian weights, is kept as it fails;
    guided starts from the same draw as default-init and mostly finds it."""
    without: tuple[Literal["lift", "decay_s_num", "decay_matrices", "first_share"], ...] = ()
    """guided: ingredients to leave out."""
    seeds: int = 64
    """Initialisations."""
    steps: int = 4000
    """Minibatches; a multiple of 40."""
    data: Literal["gaussian", "uniform", "laplace"] = "gaussian"
    """Distribution of the numbers to average."""
    optimizer: Literal["adam", "adamw", "sgd", "sign", "muon"] = "adam"
    """Update rule."""
    learning_rate: float | None = None
    """Step size; default: the preset's."""
    sequences: int = 4096
    """Held-out sequences to judge on."""
    seed: int = 0
    """What all randomness is derived from."""
    save: Path | None = None
    """File for the weights, the optimiser's memory and the history (safetensors)."""


@dataclass(frozen=True)
class Result:
    """The recipe as it was run, its history, and what each seed has become."""

    config: Config
    inputs: Inputs
    recipe: "Recipe"
    history: "History"
    diagnosis: "Diagnosis"
    target_variance: float


def run(config: Config, progress: Progress) -> Result:
    """Train and diagnose.

    Raises:
        BadOption: see `check`.
    """
    import dataclasses

    from toy.checkpoint import save_training
    from toy.diagnose import diagnose, held_out
    from toy.train import PRESETS, begin, finished, proceed

    check(config)
    recipe = PRESETS[config.preset]
    recipe = dataclasses.replace(
        recipe,
        seeds=config.seeds,
        steps=config.steps,
        data=config.data,
        optimizer=config.optimizer,
        seed=config.seed,
        learning_rate=recipe.learning_rate
        if config.learning_rate is None
        else config.learning_rate,
        **dict.fromkeys(config.without, 0.0),
    )
    with progress.task(f"train {recipe.seeds} seeds", recipe.checkpoints) as advance:
        training = begin(recipe)
        while training.done < recipe.steps:
            training = proceed(training)
            advance(f"step {training.done}")
    if config.save is not None:
        save_training(config.save, training)
    trained = finished(training)
    diagnosis = diagnose(trained, sequences=config.sequences)
    variance = float(np.asarray(held_out(trained, config.sequences).target).var())
    return Result(config, Inputs(dtype="float32"), recipe, trained.history, diagnosis, variance)


def check(config: Config) -> None:
    """Refuse sizes that train nothing, before any work is done for them.

    Raises:
        BadOption: one of them.
    """
    within("seeds", config.seeds, 1, MOST)
    multiple("steps", config.steps, CHECKPOINTS)
    within("sequences", config.sequences, 2, 100 * MOST)
    within("seed", config.seed, 0, SEEDS)
    if config.without and config.preset != "guided":
        raise BadOption("--without leaves something out of --preset guided, which this is not")
    if config.learning_rate is not None:
        between("learning-rate", config.learning_rate, 0, float("inf"))


def sections(result: Result) -> list[Section]:
    """How many seeds found it, and what the others did."""
    seen = result.diagnosis
    n, found = len(seen.found), int(seen.found.sum())
    text = [
        f"{found} of {n} seeds found the mechanism (less than 10% of the target's variance "
        "unexplained, and more than 0.9 of the attention after [SEP] on [SEP]) with the preset "
        f"“{result.config.preset}” on {result.recipe.data} data.",
        _meaning(result),
    ]
    picture = Picture(
        f"training-{result.config.preset}",
        pictures.training(
            result.history.step,
            result.history.s_tag,
            result.history.loss / result.target_variance,
            seen.found,
        ),
        f"Embedding scale of [SEP] and loss of {n} seeds, preset “{result.config.preset}”, "
        f"{result.recipe.steps} steps of {result.recipe.batch} sequences, "
        f"{result.recipe.optimizer} at {result.recipe.learning_rate:g}.",
    )
    return [Section("Training finds it, or does not", text, [_table(result)], [picture])]


def _meaning(result: Result) -> str:
    seen = result.diagnosis
    if not seen.found.any():
        return (
            f"None found it: at the end |s_num| is {_middle(np.abs(seen.s_num))} and "
            f"{_middle(seen.sink)} of the attention after [SEP] rests on it (medians). A theorem "
            "that weights exist does not make them easy to find."
        )
    of_qk = np.median(seen.ratio_QK[seen.found])
    of_v1 = np.median(seen.ratio_V1[seen.found])
    return (
        f"Where it is found, W_Q W_K is {_rank(of_qk)} (second over first singular value "
        f"{of_qk:.3f}, median; the papers say low), and W_V of the first layer is {_rank(of_v1)} "
        f"({of_v1:.2f})."
    )


def _rank(ratio: float) -> str:
    return "of low rank" if ratio < LOW else "not of low rank"


def _middle(values: np.ndarray) -> str:
    """The median of the seeds whose numbers are finite."""
    finite = values[np.isfinite(values)]
    return f"{np.median(finite):.2f}" if len(finite) else "–"


def _table(result: Result) -> Table:
    seen = result.diagnosis
    measures = {
        "variance unexplained": seen.fvu,
        "attention on [SEP] after it": seen.sink,
        "tag after [SEP] minus before": seen.tag_gap,
        "s_tag": seen.s_tag,
        "|s_num|": np.abs(seen.s_num),
        "σ₂/σ₁ of W_Q W_K": seen.ratio_QK,
        "σ₂/σ₁ of W_V (layer 1)": seen.ratio_V1,
        "effective rank of W_Q W_K": seen.rank_QK,
        "effective rank of W_V (layer 1)": seen.rank_V1,
    }
    rows = []
    for name, values in measures.items():
        finite = values[np.isfinite(values)]
        if not len(finite):
            rows.append((name, "–", "–"))
            continue
        low, middle, high = np.quantile(finite, [0.05, 0.5, 0.95])
        rows.append((name, f"{middle:.3g}", f"{low:.3g} to {high:.3g}"))
    lost = int((~seen.finite).sum())
    note = f" {lost} seeds met a loss that is not finite." if lost else ""
    return Table(
        ("measure", "median", "5% to 95% of seeds"),
        rows,
        f"n = {len(seen.found)} seeds, {seen.sequences:,} held-out sequences each.{note}",
    )
