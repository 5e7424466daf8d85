"""Losses above the dense model's, a row a model."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments.intervals import interval
from experiments.pictures import forest


def above_dense(
    losses: Mapping[str, Float[np.ndarray, " windows"]], dense: str = "dense"
) -> Figure:
    """Nats a token above the dense model's on the same windows, with 95% intervals."""
    names = [name for name in losses if name != dense]
    found = [interval(losses[name] - losses[dense]) for name in names]
    mean, low, high = (np.array([each[i] for each in found]) for i in range(3))
    return forest(names, mean, low, high, "nats a token above the dense model", "What it costs")
