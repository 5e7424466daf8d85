"""Pictures of the experiments on catch, tag, release, from arrays alone."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments.pictures import figure
from experiments.report import BLUE, INK, RED

NAMED = 3
"""Dimensions to name in a panel."""


def sizes(
    size: Sequence[Float[np.ndarray, "kind d_model"]], kinds: Sequence[str], factor: float = 6.0
) -> Figure:
    """Stems by dimension, a panel a kind: of the block with the largest sizes at later sinks."""
    block = int(np.argmax([each[1].max() for each in size]))
    canvas, panels = figure(9.5, 2.1 * len(kinds) + 0.6, rows=len(kinds))
    for axes, kind, values in zip(panels, kinds, size[block], strict=True):
        top = np.argsort(-values, kind="stable")[:NAMED]
        top = top[values[top] > factor]
        axes.vlines(np.arange(len(values)), 0, values, color=BLUE, linewidth=0.8)
        axes.vlines(top, 0, values[top], color=RED, linewidth=1.4)
        axes.axhline(factor, color=INK, linewidth=0.8, linestyle=":")
        names = ", ".join(f"{j} ({values[j]:,.0f})" for j in top.tolist()) or "none"
        axes.set(ylabel="|x| / median |x|", ylim=(0, 1.08 * max(float(values.max()), factor)))
        axes.set_title(f"{kind} tokens entering block {block}; largest above {factor:.0f}: {names}")
    panels[-1].set_xlabel("dimension")
    return canvas
