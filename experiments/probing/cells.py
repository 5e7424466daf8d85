"""Cells of tables: numbers as people read them, and a dash where there is none."""

import math

import numpy as np
from jaxtyping import Float

from experiments.intervals import Interval

NONE = "–"
BUSIEST = 8
"""Layers to name."""


def number(value: float) -> str:
    """Three digits that mean something, no exponent for large ones, and no "nan"."""
    if not math.isfinite(value):
        return NONE
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value + 0.0:.3g}"


def estimate(value: Interval | None, prompts: int | None = None) -> str:
    """Mean and interval; over how many prompts, where they are not all `prompts`."""
    if value is None:
        return NONE
    told = f"{number(value.mean)} [{number(value.low)}, {number(value.high)}]"
    return told if prompts in (None, value.n) else f"{told}, n = {value.n}"


def percent(value: Interval | None) -> str:
    """The same in percent."""
    if value is None:
        return NONE
    mean, low, high = (number(100 * x) for x in value[:3])
    return f"{mean}% [{low}%, {high}%]"


def busiest(grid: Float[np.ndarray, "layer head"]) -> str:
    """The layers with most, in order of depth, and their share of all."""
    by_layer = grid.sum(axis=1)
    ranked = np.argsort(-by_layer, kind="stable")[:BUSIEST]
    named = np.sort(ranked[by_layer[ranked] > 0])
    if not len(named):
        return ""
    share = by_layer[named].sum() / by_layer.sum()
    return f"layers {', '.join(map(str, named.tolist()))} hold {share:.0%}"


def entry(at_first: bool, dim: int) -> str:
    """Whose entry of the stream."""
    return f"{'first' if at_first else 'later'} token, dimension {dim}"
