"""A short experiment for the soak: numbers that any other order of work would change."""

from dataclasses import dataclass, field

import numpy as np

from experiments.provenance import Inputs


@dataclass(frozen=True)
class Config:
    """Which draws."""

    seed: int = 0
    size: int = 60


@dataclass(frozen=True)
class Result:
    """Of a matrix of Gaussian draws: its largest singular values, and its sums by row."""

    config: Config
    values: list[float]
    rows: list[float]
    inputs: Inputs = field(default_factory=Inputs)


def run(config: Config, progress: object) -> Result:
    """A few decompositions, some tenths of a second."""
    draw = np.random.default_rng(config.seed)
    matrix = draw.standard_normal((config.size, config.size))
    for _ in range(20):
        left, values, right = np.linalg.svd(matrix)
        matrix = (left * np.tanh(values)) @ right + 1e-3 * draw.standard_normal(matrix.shape)
    values = np.linalg.svd(matrix, compute_uv=False)
    return Result(config, values[:5].tolist(), matrix.sum(1).tolist())
