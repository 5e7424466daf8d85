"""How fast is the vmapped training, beside a plain PyTorch loop over seeds? Paired, in one run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments import speed_growth
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section, Table
from experiments.settings import SEEDS, BadOption, within
from experiments.speed_growth import Growth, Work, clock, recipe_of, table

if TYPE_CHECKING:  # jax is imported when the question is asked, not for --help
    from toy.train import Training

AGREE = 1e-4  # relative; float32, and Adam divides small gradients by their own size
PATHS = ("reduced", "literal", "torch")


@dataclass(frozen=True)
class Config:
    """Time the same training three ways: reduced, literal flax model, PyTorch loop."""

    seeds: tuple[int, ...] = (1, 64, 1024)
    """Numbers of seeds at which the three are timed in turn."""
    growth: tuple[int, ...] = (64, 256, 1024, 4096)
    """Numbers of seeds at which time and memory a seed are measured; empty: none."""
    steps: int = 20
    """Minibatches a timing."""
    repeats: int = 5
    """Paired timings, one way after the other."""
    most_literal: int = 64
    """Seeds on which the literal model is timed at most; its cost is linear beyond."""
    most_torch: int = 8
    """Seeds on which the loop is timed at most; its cost is linear in them."""
    batch: int = 64
    """Sequences a minibatch."""
    seed: int = 0
    """What all randomness is derived from."""


class Timing(NamedTuple):
    """One way at one number of seeds; seconds are of `timed` seeds."""

    path: str
    seeds: int
    timed: int
    wall: tuple[float, ...]
    cpu: tuple[float, ...]  # of all threads
    compile: float  # the first call less a later one

    def per_second(self, steps: int) -> np.ndarray:
        """Seeds x steps a second of wall time, a repeat each."""
        return self.timed * steps / np.array(self.wall)


@dataclass(frozen=True)
class Result:
    """All timings, and how far the losses of the three ways lie apart."""

    config: Config
    inputs: Inputs
    timings: list[Timing]
    linear: list[tuple[int, float]]  # seeds, seconds of the loop
    apart: dict[str, float]  # largest relative difference from the reduced losses
    growth: list[Growth]


def run(config: Config, progress: Progress) -> Result:
    """Time all ways in turn, then time and memory as seeds grow.

    Raises:
        BadOption: see `check`.
    """
    check(config)
    import torch

    torch.set_num_threads(1)
    apart = _apart(config)
    timings = []
    with progress.task("timings", len(config.seeds)) as advance:
        for seeds in config.seeds:
            timings += _timed(config, seeds)
            advance(f"{seeds} seeds")
    linear = _linear(config)
    growth = (
        speed_growth.growth(_work(config), config.growth, config.repeats, progress)
        if config.growth
        else []
    )
    return Result(config, Inputs(dtype="float32", threads=1), timings, linear, apart, growth)


def check(config: Config) -> None:
    """Refuse sizes that time nothing.

    Raises:
        BadOption: one of them.
    """
    if not config.seeds:
        raise BadOption("--seeds: give at least one number of seeds")
    for option in ("seeds", "growth"):
        for number in getattr(config, option):
            within(option, number, 1, 4096)
    within("steps", config.steps, 1, 10_000)
    within("repeats", config.repeats, 1, 1000)
    within("most-literal", config.most_literal, 1, 4096)
    within("most-torch", config.most_torch, 1, 4096)
    within("batch", config.batch, 1, 4096)
    within("seed", config.seed, 0, SEEDS)


def _work(config: Config) -> Work:
    return Work(config.steps, config.batch, config.seed)


def _apart(config: Config) -> dict[str, float]:
    """The three ways lose the same: every step of three seeds."""
    from toy.speed import train_literally
    from toy.train import drawn, train

    recipe = recipe_of(_work(config), 3, checkpoints=config.steps)
    ours = train(recipe).history.loss
    others = {"literal": train_literally(recipe, drawn(recipe)), "torch": _loop(config, 3)()}
    return {name: float(np.abs(loss / ours - 1).max()) for name, loss in others.items()}


def _loop(config: Config, seeds: int) -> Callable[[], np.ndarray]:
    """The loop on the minibatches of the recipe, which are made beforehand and not timed."""
    from experiments import torch_averager
    from toy.speed import minibatch
    from toy.train import drawn

    recipe = recipe_of(_work(config), seeds)
    start = {name: np.asarray(w) for name, w in drawn(recipe)._asdict().items()}
    starts = [{name: w[k] for name, w in start.items()} for k in range(seeds)]
    made = [minibatch(recipe, number) for number in range(config.steps)]
    batches = [torch_averager.minibatch(*(np.asarray(f) for f in batch)) for batch in made]
    return lambda: torch_averager.train(starts, batches, recipe.learning_rate)


def _ways(config: Config, seeds: int) -> dict[str, tuple[int, Callable[[], object]]]:
    """For each way: on how many seeds it is timed, and the work."""
    from toy.speed import train_literally
    from toy.train import begin, drawn

    training = begin(recipe_of(_work(config), seeds))
    fewer = min(seeds, config.most_literal)
    literal = recipe_of(_work(config), fewer)
    loop = min(seeds, config.most_torch)
    start = drawn(literal)
    return {
        "reduced": (seeds, lambda: _finish(training)),
        "literal": (fewer, lambda: train_literally(literal, start)),
        "torch": (loop, _loop(config, loop)),
    }


def _finish(training: "Training") -> "Training":
    from toy.train import proceed

    return proceed(training)


def _timed(config: Config, seeds: int) -> list[Timing]:
    ways = _ways(config, seeds)
    first = {name: clock(work)[0] for name, (_, work) in ways.items()}
    clocks: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(config.repeats):
        for name, (_, work) in ways.items():
            clocks[name].append(clock(work))
    timings = []
    for name, (timed, _) in ways.items():
        wall, cpu = zip(*clocks[name], strict=True)
        compiled = max(first[name] - float(np.median(wall)), 0.0)
        timings.append(Timing(name, seeds, timed, wall, cpu, compiled))
    return timings


def _linear(config: Config) -> list[tuple[int, float]]:
    """The loop at 1, 2, 4, ... seeds: least of the repeats in CPU seconds."""
    found, seeds = [], 1
    while seeds <= config.most_torch:
        loop = _loop(config, seeds)
        found.append((seeds, min(clock(loop)[1] for _ in range(config.repeats))))
        seeds *= 2
    return found


def sections(result: Result) -> list[Section]:
    """Ratios with their ranges, compile times, agreement, and growth."""
    agree = max(result.apart.values())
    text = [
        f"All three lose the same: over {result.config.steps} steps of three seeds the losses lie "
        f"at most {agree:.1e} apart, relatively (allowed: {AGREE:g}).",
        "The loop is given its minibatches; the other two also make theirs. Compile time is not "
        "in the rates. Ratios are paired: the three ways in turn, in one process.",
        _linearity(result),
    ]
    tables = [_rates(result)]
    if result.growth:
        tables.append(table(result.growth))
    return [Section("Seeds side by side, and one after the other", text, tables)]


def _linearity(result: Result) -> str:
    one = result.linear[0][1]
    told = ", ".join(f"{seeds}: {seconds / seeds / one:.2f}" for seeds, seconds in result.linear)
    return (
        f"The loop is timed on at most {result.config.most_torch} seeds. It trains one after the "
        f"other, so its cost is linear; measured cost a seed relative to one seed: {told}."
    )


def _rates(result: Result) -> Table:
    rows = []
    for seeds in result.config.seeds:
        here = {t.path: t for t in result.timings if t.seeds == seeds}
        loop = here["torch"]
        for path in PATHS:
            timing = here[path]
            rate = timing.per_second(result.config.steps)
            wall = rate / loop.per_second(result.config.steps)
            cpu = np.array(loop.cpu) / loop.timed / (np.array(timing.cpu) / timing.timed)
            rows.append(
                (str(seeds), path, str(timing.timed), f"{np.median(rate):,.0f}",
                 _range(wall), _range(cpu), f"{timing.compile:.1f}")
            )  # fmt: skip
    return Table(
        ("seeds", "way", "timed on", "seeds x steps / s", "over the loop, wall",
         "over the loop, CPU", "compile s"),
        rows,
        f"Median [least, largest] of {result.config.repeats} paired timings of "
        f"{result.config.steps} steps of {result.config.batch} sequences.",
    )  # fmt: skip


def _range(ratios: np.ndarray) -> str:
    return f"{np.median(ratios):.1f} [{ratios.min():.1f}, {ratios.max():.1f}]"
