"""Attention maps with their tokens: a head that has sinks, and one of its block that rests less.

After figures 2 and 7 to 11 of Zhang & Papyan 2025 (arXiv:2502.00919).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from experiments.pictures import figure
from experiments.probing.figures.labels import name_tokens

PIXELS = 512
"""Rows and columns that are drawn; a longer prompt's map shows the largest entry of each tile."""


class Map(NamedTuple):
    """One head's pattern, tiled where the prompt is long, and what to call it."""

    title: str
    pattern: Float[np.ndarray, "row column"]


def attention_maps(
    tokens: Sequence[str], maps: Sequence[Map], sinks: Int[np.ndarray, " sink"]
) -> Figure:
    """A map a head, side by side on one scale, the sinks' names red on both axes."""
    width = 5.2 + 0.045 * min(len(tokens), 64)
    canvas, panels = figure(width * len(maps), width - 0.6, columns=len(maps))
    for axes, (title, pattern) in zip(panels, maps, strict=True):
        end = len(pattern) * -(-len(tokens) // len(pattern)) - 0.5
        axes.imshow(pattern, cmap="Blues", vmin=0, vmax=1, extent=(-0.5, end, end, -0.5))
        name_tokens(axes.xaxis, tokens, sinks, rotation=90)
        name_tokens(axes.yaxis, tokens, sinks)
        axes.set(xlabel="key (attended to)", ylabel="query", title=title)
        axes.spines[:].set_visible(False)
    canvas.colorbar(panels[0].images[0], ax=panels, shrink=0.75, label="attention (0 to 1)")
    return canvas


def tiled(
    pattern: Float[np.ndarray, "query key"], most: int = PIXELS
) -> Float[np.ndarray, "row column"]:
    """The largest entry of each square tile, so that at most `most` rows and columns remain."""
    side = -(-len(pattern) // most)
    if side == 1:
        return pattern
    short = -len(pattern) % side
    padded = np.pad(pattern, ((0, short), (0, short)))
    rows = len(padded) // side
    return padded.reshape(rows, side, rows, side).max(axis=(1, 3))
