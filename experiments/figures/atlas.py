"""Which initial signs lead to the mechanism: the atlas of basins, from a small sweep."""

from dataclasses import dataclass
from pathlib import Path

from experiments import toy_sweep
from experiments.progress import Progress
from experiments.report import Section


@dataclass(frozen=True)
class Config:
    """`ctr toy sweep` with Adam alone, on Gaussian and uniform numbers: what a map needs."""

    seeds: int = 128
    """Initial draws a cell; the same in every cell."""
    steps: int = 2000
    """Minibatches; a multiple of 20."""
    seed: int = 0
    """What all randomness is derived from."""
    state: Path | None = None
    """Folder with which a run that was killed goes on; default: as `ctr toy sweep`."""


def run(config: Config, progress: Progress) -> toy_sweep.Result:
    """Three initialisations, one rule, two tails; raises as `ctr toy sweep`."""
    swept = toy_sweep.Config(
        optimizers=("adam",),
        data=("gaussian", "uniform"),
        seeds=config.seeds,
        steps=config.steps,
        seed=config.seed,
        state=config.state,
    )
    return toy_sweep.run(swept, progress)


def sections(result: toy_sweep.Result) -> list[Section]:
    """The atlas, without the table of cells."""
    return toy_sweep.sections(result)[1:]
