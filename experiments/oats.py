"""Does the fast OATS reach the error of its definition, and at what cost?

The definition takes a full SVD in each of 80 iterations; the fast loop carries a subspace along.
Both are given the same matrices of a real model, one after the other, on one thread.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from experiments.effects import percent
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section, Table
from experiments.settings import Budget, Reading, Sizes


@dataclass(frozen=True)
class Config:
    """Run OATS both ways on some of a model's matrices."""

    reading: Reading = field(default_factory=Reading)
    budget: Budget = field(default_factory=Budget)
    select: str = "layers.14.*"
    """Which linears to try, as a glob."""
    calibration: int = 8
    """Calibration sequences of 256 tokens."""


class Matrix(NamedTuple):
    """One matrix: scaled error ‖(W - Ŵ)D‖ / ‖WD‖, plain error ‖W - Ŵ‖ / ‖W‖, CPU seconds."""

    name: str
    shape: tuple[int, int]
    definition_error: float
    fast_error: float
    definition_plain: float
    fast_plain: float
    definition_seconds: float
    fast_seconds: float


@dataclass(frozen=True)
class Result:
    """Every matrix that was tried, in order."""

    config: Config
    inputs: Inputs
    matrices: list[Matrix]


def run(config: Config, progress: Progress) -> Result:
    """Calibrate on the compressed prefix as a real run does, split every matrix twice."""
    import torch

    from bridge.compress import compress
    from bridge.sites import linears
    from experiments import measure, roster
    from experiments.both import BothWays

    method = BothWays(roster.oats(config.budget))
    loaded = measure.loaded_model(config.reading, progress)
    torch.set_num_threads(1)  # CPU seconds of more threads would count their waiting, too
    sizes = Sizes(config.calibration, 2, 256, 2, 64)
    material = measure.material(loaded, config.reading, sizes, progress)
    names = list(linears(loaded.model, config.select))
    with progress.task("split both ways", len(names)) as advance:
        batches = material.calibration.split(measure.AT_ONCE)
        compress(loaded.model, method, batches, select=config.select, advance=advance)
    found = [m._replace(name=name) for name, m in zip(names, method.found, strict=True)]
    return Result(config, material.inputs, found)


def sections(result: Result) -> list[Section]:
    """One row a matrix, and the ratios."""
    found, budget = result.matrices, result.config.budget
    error = np.array([m.fast_error / m.definition_error for m in found])
    plain = np.array([m.fast_plain / m.definition_plain for m in found])
    time = sum(m.definition_seconds for m in found) / sum(m.fast_seconds for m in found)
    reached = "reaches" if error.max() <= 1.001 else "does NOT reach"
    text = [
        f"On {len(found)} matrices the fast loop {reached} the error of "
        f"{budget.iterations} full SVDs within 0.1%: its scaled error is "
        f"{error.min():.3f} to {error.max():.3f} of the definition's, its plain error "
        f"{plain.min():.3f} to {plain.max():.3f}. "
        f"CPU time: {time:.0f} times less."
    ]
    rows = [
        (
            m.name,
            f"{m.shape[0]} × {m.shape[1]}",
            f"{m.definition_error:.4f}",
            f"{m.fast_error:.4f}",
            f"{m.fast_error / m.definition_error:.3f}",
            f"{m.definition_seconds / m.fast_seconds:.0f}",
        )
        for m in found
    ]
    columns = ("matrix", "shape", "definition", "fast", "error ratio", "CPU time ratio")
    caption = (
        f"Scaled error at {percent(budget.sparsity)}, rank ratio "
        f"{budget.rank_ratio}; E[x²] over {result.config.calibration} × 256 tokens of "
        "the text's calibration half. "
        "CPU time ratio: definition over fast, process time on one thread."
    )
    return [Section("OATS, fast and by definition", text, [Table(columns, rows, caption)])]
