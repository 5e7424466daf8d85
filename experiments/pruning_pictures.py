"""What pruning keeps, by sparsity, as a picture."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.intervals import Interval
from experiments.pictures import figure
from experiments.report import INK

if TYPE_CHECKING:
    from experiments.pruning import Result
    from experiments.pruning_judge import Judged

Read = Callable[["Judged"], Interval | None]


def lines(result: "Result") -> Figure:
    """Four panels over sparsity, a line a method; the dense model as a dotted line."""
    canvas, (losses, sinks, tags, weights) = figure(11, 7.4, rows=2, columns=2)
    _panel(losses, result, _loss)
    losses.set_yscale("log")
    losses.set(ylabel="perplexity", title="Perplexity")
    _panel(sinks, result, lambda j: j.sinks.later_recall)
    sinks.set(ylabel="share", ylim=(0, 1.04), title="Later sinks kept (recall)")
    _panel(tags, result, lambda j: j.tags.ari)
    tags.set(ylabel="ARI above control", title="Tags kept")
    _panel(weights, result, _change)
    weights.set(ylabel="mean squared change", title="Δ_W")
    losses.legend(fontsize=9)
    for axes in (losses, sinks, tags, weights):
        axes.set(xlabel="share of the weights removed")
        axes.set_xticks(sorted(result.config.sparsities))
    return canvas


def _panel(axes: Axes, result: "Result", read: Read) -> None:
    dense, *variants = result.judged
    names = list(dict.fromkeys(j.variant.name for j in variants))
    for number, name in enumerate(names):
        points = [(j.variant.sparsity, read(j)) for j in variants if j.variant.name == name]
        some = sorted((s, i) for s, i in points if i is not None)
        if not some:
            continue
        # Side by side, so that no interval hides another.
        across = np.array([s for s, _ in some]) + 0.006 * (number - len(names) / 2)
        mean, low, high = np.array([i[:3] for _, i in some]).T
        axes.errorbar(
            across, mean, yerr=[mean - low, high - mean], marker="o", markersize=4, label=name
        )
    if (level := read(dense)) is not None:
        axes.axhline(level.mean, color=INK, linewidth=0.8, linestyle=":")


def _loss(j: "Judged") -> Interval | None:
    """Perplexity; its interval is that of the difference from the dense model."""
    change = j.loss.to_dense
    if change is None:
        return None
    dense = j.loss.ppl / np.exp(change.mean)
    mean, low, high = (float(dense * np.exp(x)) for x in change[:3])
    return Interval(mean, low, high, change.n)


def _change(j: "Judged") -> Interval | None:
    if not j.facts:
        return None
    return Interval(j.facts["delta_w"], j.facts["delta_w"], j.facts["delta_w"], 1)
