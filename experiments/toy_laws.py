"""What follows for training from the theorem, and what training does: laws against measurements."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments import law_sections
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section
from experiments.settings import SEEDS, within

if TYPE_CHECKING:  # jax is imported when the question is asked, not for --help
    from toy.laws.frontier import Frontier


SCALES = {
    "uniform": (8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0, 36.0, 40.0),
    "gaussian": (8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0, 36.0, 40.0),
    "laplace": (10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0, 100.0),
}


@dataclass(frozen=True)
class Config:
    """Hold the laws of training against measurements."""

    sequences: int = 20_000
    """Sequences a loss frontier is measured on."""
    seed: int = 0
    """What all randomness is derived from."""


@dataclass(frozen=True)
class Result:
    """Everything measured, beside what was predicted."""

    config: Config
    inputs: Inputs
    frontiers: "list[Frontier]"


def run(config: Config, progress: Progress) -> Result:
    """Measure every law.

    Raises:
        BadOption: see `check`.
    """
    import numpy as np

    from toy.laws.frontier import frontier

    check(config)
    frontiers = []
    with progress.task("loss frontier", len(SCALES)) as advance:
        for tail, scales in SCALES.items():
            frontiers.append(
                frontier(tail, np.array(scales), sequences=config.sequences, seed=config.seed)
            )
            advance(tail)
    return Result(config, Inputs(device="cpu", dtype="float64"), frontiers)


def check(config: Config) -> None:
    """Refuse sizes that measure nothing, before any work is done for them.

    Raises:
        BadOption: one of them.
    """
    within("sequences", config.sequences, 100, 1_000_000)
    within("seed", config.seed, 0, SEEDS)


def sections(result: Result) -> list[Section]:
    """One section a law."""
    return [law_sections.frontier(result.frontiers)]
