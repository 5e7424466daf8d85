"""The least loss that an embedding scale can reach, by data tail, with its prediction."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from experiments import law_sections
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section
from experiments.settings import SEEDS, within
from experiments.toy_laws import SCALES

if TYPE_CHECKING:
    from toy.laws.frontier import Frontier


@dataclass(frozen=True)
class Config:
    """The loss frontier of three data tails."""

    sequences: int = 20_000
    """Sequences a frontier is measured on."""
    seed: int = 0
    """What they are drawn from."""


@dataclass(frozen=True)
class Result:
    """One frontier a tail."""

    config: Config
    inputs: Inputs
    frontiers: "list[Frontier]"


def run(config: Config, progress: Progress) -> Result:
    """As `ctr toy laws` measures it.

    Raises:
        BadOption: too few sequences or too many.
    """
    from toy.laws.frontier import frontier

    within("sequences", config.sequences, 100, 1_000_000)
    within("seed", config.seed, 0, SEEDS)
    found = []
    with progress.task("loss frontier", len(SCALES)) as advance:
        for tail, scales in SCALES.items():
            found.append(
                frontier(tail, np.array(scales), sequences=config.sequences, seed=config.seed)
            )
            advance(tail)
    return Result(config, Inputs(dtype="float64"), found)


def sections(result: Result) -> list[Section]:
    """The frontier's section of the laws of training."""
    return [law_sections.frontier(result.frontiers)]
