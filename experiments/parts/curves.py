"""Curves with bands: means and 95% intervals along an axis."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from experiments.intervals import Interval
from experiments.pictures import figure


def curves(
    x: Sequence[float],
    lines: Mapping[str, Sequence[Interval | None]],
    *,
    across: str,
    along: str,
    title: str,
    log: bool = False,
) -> Figure:
    """A line a name over `x`, its interval as a band; None leaves a gap. `log`: of the `x`."""
    canvas, (axes,) = figure(8.6, 4.6)
    if log:
        axes.set_xscale("log")
    nan = float("nan")
    for name, values in lines.items():
        mean, low, high = (
            [nan if value is None else value[i] for value in values] for i in range(3)
        )
        (drawn,) = axes.plot(x, mean, label=name, linewidth=1.8, marker="o", markersize=3.5)
        axes.fill_between(x, low, high, color=drawn.get_color(), alpha=0.18, linewidth=0)
    axes.set(xlabel=across, ylabel=along, title=title)
    if len(lines) > 1:
        axes.legend(loc="best", fontsize=9)
    return canvas
