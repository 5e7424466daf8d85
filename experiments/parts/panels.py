"""Curves with intervals, side by side: one panel a measure, one line a method."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments import pictures
from experiments.intervals import interval

Lines = Mapping[str, Float[np.ndarray, "point 3"]]
"""By name: mean, low and high of the interval at every point; NaN where there is none."""


def panels(
    points: Sequence[str],
    measures: Mapping[str, Lines],
    across: str,
    *,
    log: bool = False,
    mark: float | None = None,
) -> Figure:
    """One panel a measure, over the same points; `mark` is a level to compare with."""
    canvas, axes = pictures.figure(5.2 * len(measures), 4.0, columns=len(measures))
    at = np.arange(len(points))
    few = len(points) <= 12
    for place, (label, lines) in zip(axes, measures.items(), strict=True):
        for number, (name, found) in enumerate(lines.items()):
            # Points of several methods beside each other, so that their bars can be told apart.
            x = at + few * 0.05 * (number - (len(lines) - 1) / 2)
            mean, low, high = np.asarray(found, dtype=float).T
            (line,) = place.plot(x, mean, marker="o" if few else "", markersize=4, label=name)
            place.vlines(x, low, high, color=line.get_color(), linewidth=2, alpha=0.5)
        if mark is not None:
            place.axhline(mark, color="#888888", linewidth=0.8, linestyle=":")
        step = max(1, len(points) // 10)
        place.set_xticks(at[::step], list(points)[::step])
        place.set(xlabel=across, ylabel=label)
        if log:
            place.set_yscale("log")
    axes[0].legend(loc="best", fontsize=9)
    return canvas


def points(values: Sequence[Float[np.ndarray, " unit"]]) -> Float[np.ndarray, "point 3"]:
    """The intervals of the units at every point, as `panels` draws them."""
    return np.array([interval(units)[:3] for units in values])
