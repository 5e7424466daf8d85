"""What gates do to sinks, and what knowing sinks is worth, as pictures."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.decoding.sinks import PLAIN
from experiments.intervals import Interval
from experiments.pictures import figure
from experiments.report import INK

if TYPE_CHECKING:
    from experiments.decoding.sinks import Gain, Result, Row

Read = Callable[["Row"], Interval | None]
DRAWN = (PLAIN, "top", "random", "noise")


def lines(result: "Result", names: Mapping[str, str], ways: Mapping[str, str]) -> Figure:
    """Six panels over sparsity, a line a method or control, where most tokens are sparse."""
    canvas, axes = figure(12, 7.4, rows=2, columns=3)
    start = min(result.config.sparse_from)
    rows = [r for r in result.rows if r.variant.sparse_from == start and r.variant.way in DRAWN]
    panels: list[tuple[str, Read]] = [
        ("Δ nats a token", lambda r: r.nll),
        ("first sinks kept (recall)", lambda r: r.kept.first_recall),
        ("later sinks kept (recall)", lambda r: r.kept.later_recall),
        ("later sinks (precision)", lambda r: r.kept.later_precision),
        ("tags kept (cosine)", lambda r: r.tags),
        ("massive activations kept (recall)", lambda r: r.massive[0]),
    ]
    for panel, (title, read) in zip(axes, panels, strict=True):
        _panel(panel, rows, read, names, ways)
        panel.set(title=title, xlabel="share of bytes not read")
        panel.set_xticks(sorted(result.config.sparsities))
        if panel is not axes[0]:
            panel.set_ylim(-0.03, 1.04)
    # Random channels cost several nats, thresholds tenths of one.
    axes[0].set_yscale("symlog", linthresh=0.5)
    canvas.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return canvas


def _panel(
    axes: Axes,
    rows: "list[Row]",
    read: Read,
    names: Mapping[str, str],
    ways: Mapping[str, str],
) -> None:
    lines_ = dict.fromkeys((r.variant.method, r.variant.way) for r in rows)
    for number, (method, way) in enumerate(lines_):
        here = [r for r in rows if (r.variant.method, r.variant.way) == (method, way)]
        some = sorted((r.variant.sparsity, i) for r in here if (i := read(r)) is not None)
        if not some:
            continue
        # Side by side, so that no interval hides another.
        across = np.array([s for s, _ in some]) + 0.006 * (number - len(lines_) / 2)
        mean, low, high = np.array([i[:3] for _, i in some]).T
        name = names[method] if way == PLAIN else ways[way]
        axes.errorbar(
            across, mean, yerr=[mean - low, high - mean], marker="o", markersize=4, label=name
        )


def forest(result: "Result", ways: Mapping[str, str]) -> Figure:
    """A row a way, a colour a sparsity, a panel a start; controls that break the model left out."""
    starts = list(result.config.sparse_from)
    shown = [g for g in result.gains if g.other == PLAIN and g.variant.way not in DRAWN]
    names = list(dict.fromkeys(g.variant.way for g in shown))
    canvas, panels = figure(5.6 * len(starts) + 2, 1.2 + 0.55 * len(names), columns=len(starts))
    for axes, start in zip(panels, starts, strict=True):
        for number, sparsity in enumerate(result.config.sparsities):
            _points(axes, shown, names, start, sparsity, 0.16 * number)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(names)), [ways[n] for n in names] if axes is panels[0] else [])
        axes.set_ylim(len(names) - 0.2, -0.5)  # rows of all panels level
        title = "every token sparse" if start == 0 else f"first {start:.0%} dense"
        axes.set(xlabel="nats a token, less plain", title=title)
    handles = panels[0].get_legend_handles_labels()
    canvas.legend(*handles, loc="outside upper center", ncols=len(result.config.sparsities))
    return canvas


def _points(
    axes: Axes,
    gains: "list[Gain]",
    names: list[str],
    start: float,
    sparsity: float,
    below: float,
) -> None:
    here = [
        (names.index(g.variant.way) + below, g.nll)
        for g in gains
        if (g.variant.sparse_from, g.variant.sparsity) == (start, sparsity)
    ]
    if not here:
        return
    mean, low, high = np.array([i[:3] for _, i in here]).T
    axes.errorbar(
        mean,
        [y for y, _ in here],
        xerr=[mean - low, high - mean],
        fmt="o",
        markersize=4,
        label=f"{sparsity:.0%} not read",
    )
