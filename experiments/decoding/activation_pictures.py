"""Perplexity by the share that is not read, as a picture."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from experiments.decoding.activation import TEAL
from experiments.decoding.activation_judge import TOLERANCE
from experiments.pictures import figure
from experiments.report import INK

if TYPE_CHECKING:
    from experiments.decoding.activation import Result
    from experiments.decoding.activation_judge import Judged

MARKS = "osD^v<>PX*hd"
WORST = 1.0
"""Nats worse than TEAL beyond which a method is off the second panel, as is what has no budget."""


def lines(result: "Result") -> Figure:
    """Perplexity; difference from TEAL. A line a method, the dense model dotted."""
    canvas, (left, right) = figure(12, 5.2, columns=2)
    dense, *others = result.judged
    names = list(dict.fromkeys((j.variant.method, j.variant.plan) for j in others))
    for number, name in enumerate(names):
        mine = (j for j in others if (j.variant.method, j.variant.plan) == name)
        mine = sorted(mine, key=_sparsity)
        style = {
            "marker": MARKS[number % len(MARKS)],
            "markersize": 4,
            "color": f"C{number % 6}",
            "linestyle": ("-", "--")[number // 6 % 2],
            "label": f"plan {name[0]}" if name[1] else name[0],
        }
        left.plot([_sparsity(j) for j in mine], [j.ppl for j in mine], **style)
        fair = (j for j in mine if j.planned <= 1 - _sparsity(j) + 1e-4 and not j.whole)
        near = [j for j in fair if j.teal is not None and j.teal.mean < WORST]
        if not near:
            continue
        # Side by side, so that no interval hides another.
        across = np.array([_sparsity(j) for j in near]) + 0.004 * (number - len(names) / 2)
        mean, low, high = np.array([j.teal[:3] for j in near if j.teal is not None]).T
        right.errorbar(across, mean, yerr=[mean - low, high - mean], **style)
        more = np.array([j.read - j.teal_read > TOLERANCE for j in near])
        hollow = {**style, "linestyle": "none", "label": None, "markerfacecolor": "white"}
        right.plot(across[more], mean[more], zorder=3, **hollow)
    left.axhline(dense.ppl, color=INK, linewidth=0.8, linestyle=":")
    left.set(yscale="log", ylabel="perplexity", title="Perplexity (dense: dotted)")
    right.axhline(0, color=INK, linewidth=0.8)
    right.set(ylabel="nats a token", title=f"Beside {TEAL.upper()}, uniform (below: better)")
    ticks = sorted({_sparsity(j) for j in others})
    for axes in (left, right):
        axes.set(xlabel="share of the linears' bytes that is not read")
        axes.set_xticks(ticks)
        axes.set_xlim(ticks[0] - 0.04, ticks[-1] + 0.04)
    left.legend(fontsize=8, ncols=2)
    return canvas


def _sparsity(j: "Judged") -> float:
    return j.variant.sparsity
