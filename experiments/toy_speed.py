"""How fast is the vmapped training, beside a plain PyTorch loop over seeds? Paired, in one run."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments.progress import Progress
from experiments.provenance import Inputs, peak_memory
from experiments.report import Section, Table
from experiments.settings import SEEDS, BadOption, within

if TYPE_CHECKING:  # jax is imported when the question is asked, not for --help
    from toy.recipe import Recipe
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


class Growth(NamedTuple):
    """Cost of a seed and a step, and the memory of a process that trains so many."""

    seeds: int
    microseconds: tuple[float, ...]  # of CPU time, a repeat each
    peak_bytes: int


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
    growth = _growth(config, progress) if config.growth else []
    return Result(config, Inputs(dtype="float32", threads=1), timings, linear, apart, growth)


def check(config: Config) -> None:
    """Refuse sizes that time nothing.

    Raises:
        BadOption: one of them.
    """
    if not config.seeds:
        raise BadOption("--seeds: give at least one number of seeds")
    for seeds in config.seeds + config.growth:
        within("seeds", seeds, 1, 4096)
    within("steps", config.steps, 1, 10_000)
    within("repeats", config.repeats, 1, 1000)
    within("most-literal", config.most_literal, 1, 4096)
    within("most-torch", config.most_torch, 1, 4096)
    within("batch", config.batch, 1, 4096)
    within("seed", config.seed, 0, SEEDS)


def recipe_of(config: Config, seeds: int, checkpoints: int = 1) -> "Recipe":
    """Adam at a constant step size, from the diagonal start."""
    from toy.recipe import Recipe

    return Recipe(
        seeds=seeds, steps=config.steps, batch=config.batch, checkpoints=checkpoints,
        schedule="constant", seed=config.seed,
    )  # fmt: skip


def _apart(config: Config) -> dict[str, float]:
    """The three ways lose the same: every step of three seeds."""
    from toy.speed import train_literally
    from toy.train import drawn, train

    recipe = recipe_of(config, 3, checkpoints=config.steps)
    ours = train(recipe).history.loss
    others = {"literal": train_literally(recipe, drawn(recipe)), "torch": _loop(config, 3)()}
    return {name: float(np.abs(loss / ours - 1).max()) for name, loss in others.items()}


def _loop(config: Config, seeds: int) -> Callable[[], np.ndarray]:
    """The loop on the minibatches of the recipe, which are made beforehand and not timed."""
    from experiments import torch_averager
    from toy.speed import minibatch
    from toy.train import drawn

    recipe = recipe_of(config, seeds)
    start = {name: np.asarray(w) for name, w in drawn(recipe)._asdict().items()}
    starts = [{name: w[k] for name, w in start.items()} for k in range(seeds)]
    made = [minibatch(recipe, number) for number in range(config.steps)]
    batches = [torch_averager.minibatch(*(np.asarray(f) for f in batch)) for batch in made]
    return lambda: torch_averager.train(starts, batches, recipe.learning_rate)


def _ways(config: Config, seeds: int) -> dict[str, tuple[int, Callable[[], object]]]:
    """For each way: on how many seeds it is timed, and the work."""
    from toy.speed import train_literally
    from toy.train import begin, drawn

    training = begin(recipe_of(config, seeds))
    fewer = min(seeds, config.most_literal)
    literal = recipe_of(config, fewer)
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
    first = {name: _clock(work)[0] for name, (_, work) in ways.items()}
    clocks: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(config.repeats):
        for name, (_, work) in ways.items():
            clocks[name].append(_clock(work))
    timings = []
    for name, (timed, _) in ways.items():
        wall, cpu = zip(*clocks[name], strict=True)
        compiled = max(first[name] - float(np.median(wall)), 0.0)
        timings.append(Timing(name, seeds, timed, wall, cpu, compiled))
    return timings


def _clock(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of wall time, and of CPU time over all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _linear(config: Config) -> list[tuple[int, float]]:
    """The loop at 1, 2, 4, ... seeds: least of the repeats in CPU seconds."""
    found, seeds = [], 1
    while seeds <= config.most_torch:
        loop = _loop(config, seeds)
        found.append((seeds, min(_clock(loop)[1] for _ in range(config.repeats))))
        seeds *= 2
    return found


def _growth(config: Config, progress: Progress) -> list[Growth]:
    """Time in turn in this process; memory in a process of its own for each number of seeds."""
    from toy.train import begin, proceed

    ready = {seeds: begin(recipe_of(config, seeds)) for seeds in config.growth}
    spent: dict[int, list[float]] = {seeds: [] for seeds in ready}
    with progress.task("growth", len(ready) * (config.repeats + 2)) as advance:
        for repeat in range(config.repeats + 1):
            for seeds, training in ready.items():
                cpu = _clock(lambda training=training: proceed(training))[1]
                if repeat:  # the first one compiles
                    spent[seeds].append(1e6 * cpu / seeds / config.steps)
                advance(f"{seeds} seeds")
        peaks = {}
        for seeds in ready:
            peaks[seeds] = _peak(config, seeds)
            advance(f"memory of {seeds} seeds")
    return [Growth(seeds, tuple(spent[seeds]), peaks[seeds]) for seeds in ready]


def _peak(config: Config, seeds: int) -> int:
    """Peak memory of a process that trains `seeds` seeds and does nothing else."""
    about = json.dumps({"seeds": seeds, "steps": config.steps, "batch": config.batch})
    code = f"from experiments.toy_speed import child; child({about!r})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(ended.stdout.split()[-1])


def child(about: str) -> None:
    """What `_peak` starts: train, and write the peak memory in bytes."""
    from toy.train import begin, proceed

    told = json.loads(about)
    proceed(begin(recipe_of(Config(steps=told["steps"], batch=told["batch"]), told["seeds"])))
    sys.stdout.write(f"{peak_memory()}\n")


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
        tables.append(_growth_table(result))
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


def _growth_table(result: Result) -> Table:
    rows = [
        (f"{g.seeds:,}", f"{np.median(g.microseconds):.1f} [{min(g.microseconds):.1f}, "
         f"{max(g.microseconds):.1f}]", f"{g.peak_bytes / 2**20:,.0f}")
        for g in result.growth
    ]  # fmt: skip
    first, last = result.growth[0], result.growth[-1]
    grown = (last.peak_bytes - first.peak_bytes) / max(last.seeds - first.seeds, 1) / 1024
    return Table(
        ("seeds", "µs of CPU a seed and step", "peak MiB"),
        rows,
        f"The reduced way alone. Peak memory of a process of its own: {grown:.1f} KiB a seed from "
        f"{first.seeds:,} to {last.seeds:,} seeds, on top of the libraries.",
    )
