"""How long a tag can be read in the stream: its groups, above random segments, by depth.

After the release of Zhang & Papyan 2025 (arXiv:2502.00919); the control is the null itself, zero
here: the same number of contiguous segments, cut at random.
"""

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.intervals import Interval
from experiments.pictures import figure
from experiments.report import BLUE, INK, ORANGE


def survival(
    eta2: Float[np.ndarray, "depth 3"],
    ari: Float[np.ndarray, "depth 3"],
    written: tuple[Interval, Interval],
    layer: int,
    n: int,
) -> Figure:
    """Two panels, η² and ARI above the null: mean and interval of each depth.

    The columns are mean, low, high. layer: the block that writes the tag; written: its head's own
    output, points with their intervals on the same scale, so that what is lost on the way can be
    seen.
    """
    canvas, panels = figure(11.5, 4.0, columns=2)
    for axes, values, point, name, colour in (
        (panels[0], eta2, written[0], "η²", BLUE),
        (panels[1], ari, written[1], "adjusted Rand index", ORANGE),
    ):
        depth = np.arange(len(values))
        mean, low, high = values.T
        axes.fill_between(depth, low, high, color=colour, alpha=0.3, linewidth=0)
        axes.plot(depth, mean, color=colour, marker="o", markersize=3.5, label="stream")
        label = f"the head's output, block {layer}"
        reach = [[point.mean - point.low], [point.high - point.mean]]
        axes.errorbar(
            [layer + 0.5], [point.mean], yerr=reach, fmt="D", color=INK, markersize=6, capsize=3,
            label=label,
        )  # fmt: skip
        axes.axhline(0, color=INK, linewidth=0.8, linestyle=":")
        axes.axvspan(layer, layer + 1, color="#999999", alpha=0.18, linewidth=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(
            xlabel="blocks passed",
            ylabel="above random segments",
            title=f"{name} of the sinks' groups, n = {n}",
        )
        axes.legend(loc="best", fontsize=9)
    return canvas
