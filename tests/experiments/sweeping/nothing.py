"""An experiment that asks nothing: what a sweep costs by itself."""

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from experiments.provenance import Inputs
from experiments.settings import BadOption


@dataclass(frozen=True)
class Config:
    """What to do with a number."""

    seed: int = 0
    scale: float = 1.0
    names: tuple[str, ...] = ("a",)
    refused: int = -1
    """This seed is refused."""
    fatal: Path | None = None
    """A folder: the first worker that runs the seed of a file in it dies, and removes the file."""
    held: Path | None = None
    """A file: the run of a seed waits while `hold-SEED` lies beside it."""
    pause: float = 0.0


@dataclass(frozen=True)
class Result:
    config: Config
    value: float
    inputs: Inputs = field(default_factory=Inputs)


def run(config: Config, progress: object) -> Result:
    if config.seed == config.refused:
        raise BadOption(f"--seed {config.seed}: refused")
    if config.fatal is not None and (mark := config.fatal.parent / f"die-{config.seed}").exists():
        mark.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    while config.held is not None and (config.held.parent / f"hold-{config.seed}").exists():
        time.sleep(0.02)
    time.sleep(config.pause)
    return Result(config, config.scale * config.seed / 3)
