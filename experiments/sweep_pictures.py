"""The atlas of basins as a picture."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.pictures import figure
from experiments.report import INK

if TYPE_CHECKING:
    from experiments.toy_sweep import Result
    from toy.atlas import Rate

LABELS = [f"{first}{second}" for first in "+−" for second in "+−"]


def atlas(result: "Result") -> Figure:
    """One row an initialisation: seeds where they start, and success by initial signs."""
    names = result.plan.initialisations
    canvas, grid = figure(10.5, 3.4 * len(names), rows=len(names), columns=2)
    for row, name in enumerate(names):
        left, right = grid[2 * row : 2 * row + 2]
        here = [r.outcome for r in result.rows if r.cell.initialisation == name]
        share = np.mean([outcome.found for outcome in here], axis=0)
        start = here[0].start
        # A scale that all draws share says nothing: the read-out's sign then takes its place.
        across, label = (start.d, "d") if np.ptp(start.s_tag) == 0 else (start.s_tag, "s_tag")
        dots = left.scatter(across, start.w, c=share, cmap="viridis", vmin=0, vmax=1, s=26)
        left.axhline(0, color=INK, linewidth=0.6)
        left.axvline(0, color=INK, linewidth=0.6)
        left.set(xlabel=f"{label} before training", ylabel="w before training", title=name)
        canvas.colorbar(dots, ax=left, label="share of cells that found it")
        _signs(right, result.atlas[name])
    return canvas


def _signs(axes: Axes, rates: "list[Rate]") -> None:
    """4 x 4: signs of (w, d) down, of (s_tag, s_num) across."""
    values = np.array([rate.hits / rate.n if rate.n else np.nan for rate in rates]).reshape(4, 4)
    axes.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for place, rate in enumerate(rates):
        if rate.n:
            dark = rate.hits / rate.n < 0.6
            axes.text(
                place % 4, place // 4, f"{rate.hits}/{rate.n}",
                ha="center", va="center", fontsize=9, color="white" if dark else INK,
            )  # fmt: skip
    axes.set_xticks(range(4), LABELS)
    axes.set_yticks(range(4), LABELS)
    axes.set(
        xlabel=r"initial signs of $s_\mathrm{tag}$, $s_\mathrm{num}$",
        ylabel="initial signs of w, d",
        title="found of n",
    )
