"""What a seed costs as seeds grow: time in turn in one process, memory in one each."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from experiments.progress import Progress
from experiments.provenance import peak_memory
from experiments.report import Table

if TYPE_CHECKING:  # jax is imported when the question is asked, not for --help
    from toy.recipe import Recipe


class Work(NamedTuple):
    """What is timed at every number of seeds."""

    steps: int
    batch: int
    seed: int


class Growth(NamedTuple):
    """Cost of a seed and a step, and the memory of a process that trains so many."""

    seeds: int
    microseconds: tuple[float, ...]  # of CPU time, a repeat each
    peak_bytes: int


def recipe_of(work: Work, seeds: int, checkpoints: int = 1) -> "Recipe":
    """Adam at a constant step size, from the diagonal start."""
    from toy.recipe import Recipe

    return Recipe(
        seeds=seeds, steps=work.steps, batch=work.batch, checkpoints=checkpoints,
        schedule="constant", seed=work.seed,
    )  # fmt: skip


def clock(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of wall time, and of CPU time over all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def growth(work: Work, sizes: Sequence[int], repeats: int, progress: Progress) -> list[Growth]:
    """Time in turn in this process; memory in a process of its own for each number of seeds."""
    from toy.train import begin, proceed

    ready = {seeds: begin(recipe_of(work, seeds)) for seeds in sizes}
    spent: dict[int, list[float]] = {seeds: [] for seeds in ready}
    with progress.task("growth", len(ready) * (repeats + 2)) as advance:
        for repeat in range(repeats + 1):
            for seeds, training in ready.items():
                cpu = clock(lambda training=training: proceed(training))[1]
                if repeat:  # the first one compiles
                    spent[seeds].append(1e6 * cpu / seeds / work.steps)
                advance(f"{seeds} seeds")
        peaks = {}
        for seeds in ready:
            peaks[seeds] = _peak(work, seeds)
            advance(f"memory of {seeds} seeds")
    return [Growth(seeds, tuple(spent[seeds]), peaks[seeds]) for seeds in ready]


def _peak(work: Work, seeds: int) -> int:
    """Peak memory of a process that trains `seeds` seeds and does nothing else."""
    about = json.dumps([seeds, *work])
    code = f"from experiments.speed_growth import child; child({about!r})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(ended.stdout.split()[-1])


def child(about: str) -> None:
    """What `_peak` starts: train, and write the peak memory in bytes."""
    from toy.train import begin, proceed

    seeds, *work = json.loads(about)
    proceed(begin(recipe_of(Work(*work), seeds)))
    sys.stdout.write(f"{peak_memory()}\n")


def table(found: Sequence[Growth]) -> Table:
    """Time and memory a seed."""
    rows = [
        (f"{g.seeds:,}", f"{np.median(g.microseconds):.1f} [{min(g.microseconds):.1f}, "
         f"{max(g.microseconds):.1f}]", f"{g.peak_bytes / 2**20:,.0f}")
        for g in found
    ]  # fmt: skip
    first, last = found[0], found[-1]
    grown = (last.peak_bytes - first.peak_bytes) / max(last.seeds - first.seeds, 1) / 1024
    return Table(
        ("seeds", "µs of CPU a seed and step", "peak MiB"),
        rows,
        f"The reduced way alone. Peak memory of a process of its own: {grown:.1f} KiB a seed from "
        f"{first.seeds:,} to {last.seeds:,} seeds, on top of the libraries.",
    )
