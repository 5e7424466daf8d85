"""Does the fast OATS reach the error of its definition, and at what cost?

The definition takes a full SVD in each of 80 iterations; the fast loop carries a subspace along.
Both are given the same matrices of a real model, one after the other, on one thread, and with
`--side` one square matrix with a real spectrum besides.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from experiments.effects import percent
from experiments.intervals import interval
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section, Table
from experiments.settings import Budget, Reading, Sizes, some, within


@dataclass(frozen=True)
class Config:
    """Run OATS both ways on some of a model's matrices."""

    reading: Reading = field(default_factory=Reading)
    budget: Budget = field(default_factory=Budget)
    select: str = "layers.14.*"
    """Which linears to try, as a glob."""
    calibration: int = 8
    """Calibration sequences of 256 tokens."""
    accelerations: tuple[int, ...] = (7, 4, 2)
    """Iterations of the definition that a fast one stands for; the model keeps the first result."""
    side: int = 0
    """Rows and columns of one more matrix, with the spectrum and the scales of the last linear."""
    timed: int = 1
    """Full SVDs timed of that matrix; the rest of its definition's time is extrapolated."""


class Run(NamedTuple):
    """Scaled error ‖(W - Ŵ)D‖ / ‖WD‖, plain error ‖W - Ŵ‖ / ‖W‖, CPU seconds, their floor, note.

    The floor is the time of the matrix products that the iterations need, at the rate measured
    beside them; 0 where there is none.
    """

    scaled: float
    plain: float
    seconds: float
    floor: float = 0.0
    note: str = ""


class Matrix(NamedTuple):
    """One matrix by its definition, by as few plain iterations (control), and fast."""

    name: str
    shape: tuple[int, int]
    definition: Run
    control: Run | None
    fast: list[Run]


@dataclass(frozen=True)
class Result:
    """Every matrix that was tried, in order; the one of `side` last."""

    config: Config
    inputs: Inputs
    matrices: list[Matrix]
    large: Matrix | None


def run(config: Config, progress: Progress) -> Result:
    """Calibrate on the compressed prefix as a real run does, split every matrix in every way.

    Raises:
        BadOption: no acceleration or one below 1, a side too small to split, no SVD to time.
    """
    some("accelerations", config.accelerations)
    for acceleration in config.accelerations:
        within("accelerations", acceleration, 1)
    if config.side:
        within("side", config.side, 32)
        within("timed", config.timed, 1)
    import torch

    from bridge.compress import compress
    from bridge.sites import linears
    from experiments import measure, roster
    from experiments.both import BothWays
    from experiments.large_split import large

    method = BothWays(roster.oats(config.budget), config.accelerations)
    loaded = measure.loaded_model(config.reading, progress)
    torch.set_num_threads(1)  # CPU seconds of more threads would count their waiting, too
    sizes = Sizes(config.calibration, 2, 256, 2, 64)
    material = measure.material(loaded, config.reading, sizes, progress)
    names = list(linears(loaded.model, config.select))
    with progress.task("split in every way", len(names)) as advance:
        batches = material.calibration.split(measure.AT_ONCE)
        compress(loaded.model, method, batches, select=config.select, advance=advance)
    found = [m._replace(name=name) for name, m in zip(names, method.found, strict=True)]
    wide = None
    if config.side:
        with progress.task(f"{config.side} × {config.side}", config.budget.iterations) as advance:
            wide = large(method, config.side, config.timed, advance)
    return Result(config, material.inputs, found, wide)


def sections(result: Result) -> list[Section]:
    """A row a matrix and way, and the ratios with intervals over matrices."""
    text = [_verdict(result, i) for i in range(len(result.config.accelerations))]
    text.append(_beside(result))
    if result.large:
        text.append(_extrapolated(result.large, result.config))
    every = [*result.matrices, *([result.large] if result.large else [])]
    rows = [_row(m, run, result.config) for m in every for run in _ways(result, m)]
    columns = (
        "matrix", "shape", "fast iterations", "definition", "fast", "error ratio",
        "plain error ratio", "CPU time ratio", "over the floor", "note",
    )  # fmt: skip
    budget = result.config.budget
    caption = (
        f"Scaled error at {percent(budget.sparsity)}, rank ratio "
        f"{budget.rank_ratio}; E[x²] over {result.config.calibration} × 256 tokens of "
        "the text's calibration half. CPU time ratio: definition over fast, process time on one "
        "thread, one after the other. Floor: the products of the fast iterations alone, at the "
        "rate measured beside them. Intervals are over matrices, which share a calibration text; "
        "the times are of one run each."
    )
    return [Section("OATS, fast and by definition", text, [Table(columns, rows, caption)])]


def steps(config: Config, acceleration: int) -> int:
    """Fast iterations that stand for the definition's."""
    from bridge.splitting import WarmSubspace

    return WarmSubspace(acceleration=acceleration).steps(config.budget.iterations)


def _names(result: Result) -> list[str]:
    return [str(steps(result.config, a)) for a in result.config.accelerations]


def _ways(result: Result, matrix: Matrix) -> list[tuple[str, Run]]:
    return list(zip(_names(result), matrix.fast, strict=True))


def _verdict(result: Result, i: int) -> str:
    found, iterations = result.matrices, result.config.budget.iterations
    error = np.array([m.fast[i].scaled / m.definition.scaled for m in found])
    plain = np.array([m.fast[i].plain / m.definition.plain for m in found])
    time = sum(m.definition.seconds for m in found) / sum(m.fast[i].seconds for m in found)
    floor = sum(m.fast[i].seconds for m in found) / sum(m.fast[i].floor for m in found)
    reached = "reaches" if error.max() <= 1.001 else "does NOT reach"
    return (
        f"With {_names(result)[i]} iterations the fast loop {reached} the error of {iterations} "
        f"full SVDs within 0.1% on every one of {len(found)} matrices: scaled error "
        f"{_over(error)} of the definition's, at worst {error.max():.4f}; plain error "
        f"{_over(plain)}, at worst {plain.max():.4f}. CPU time: {time:.0f} times less, "
        f"{floor:.2f} times that of its matrix products; "
        f"{sum(bool(m.fast[i].note) for m in found)} fallbacks."
    )


def _beside(result: Result) -> str:
    pairs = [
        (m.control.scaled / m.definition.scaled, m.fast[0].scaled / m.definition.scaled)
        for m in result.matrices
        if m.control
    ]
    few, fast = np.array(pairs).T
    more = interval(few - fast)
    verdict = "which does not tell them apart"
    if more.low > 0:
        verdict = "so they are not enough without acceleration"
        if fast.max() > 1.001:
            verdict = "so acceleration helps, and is not enough everywhere"
    elif more.high < 0:
        verdict = "so acceleration makes it worse"
    return (
        f"Control: {_names(result)[0]} iterations of the definition itself leave {_over(few)} of "
        f"its error, {_over(few - fast)} more than as many fast ones: {verdict}."
    )


def _over(ratios: np.ndarray) -> str:
    """Mean and interval over matrices; one matrix has no interval."""
    return f"{ratios[0]:.3g}" if len(ratios) == 1 else str(interval(ratios))


def _extrapolated(large: Matrix, config: Config) -> str:
    full = large.definition
    ways = ", ".join(
        f"{run.scaled / full.scaled:.3f} of the error (plain: {run.plain / full.plain:.3f}) "
        f"in 1/{full.seconds / run.seconds:.0f} of the time at {steps(config, a)} iterations"
        for a, run in zip(config.accelerations, large.fast, strict=True)
    )
    return (
        f"{large.shape[0]} × {large.shape[1]}: {ways}. The definition's time is "
        f"{config.budget.iterations} times the mean of {2 * config.timed} full SVDs, its error "
        "that of as many iterations by converged subspaces."
    )


def _row(matrix: Matrix, way: tuple[str, Run], config: Config) -> tuple[str, ...]:
    name, run = way
    full = matrix.definition
    return (
        matrix.name,
        f"{matrix.shape[0]} × {matrix.shape[1]}",
        name,
        f"{full.scaled:.4f}",
        f"{run.scaled:.4f}",
        f"{run.scaled / full.scaled:.4f}",
        f"{run.plain / full.plain:.4f}",
        f"{full.seconds / run.seconds:.0f}",
        f"{run.seconds / run.floor:.2f}" if run.floor else "",
        run.note,
    )
