"""Heads' outputs as rows of coloured tokens, one a model, with or without their patterns."""

from collections.abc import Mapping
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import pictures
from experiments.parts.low_rank.segmented import Look, Shown
from experiments.report import RED


def strips(looks: Mapping[str, Look], shown: Shown) -> Figure:
    """A row of tokens a model, the dense model's sinks in red.

    Colours are of each row's own components: the same colour in two rows means nothing.
    """
    canvas, axes = pictures.figure(11, 1.2 + 0.4 * len(looks), rows=len(looks))
    for place, (name, look) in zip(axes, looks.items(), strict=True):
        _strip(place, name, look)
    names = [pictures.readable(token).strip() or "␣" for token in shown.tokens]
    last = axes[-1]
    last.set_xticks(range(len(names)), names, rotation=90, fontsize=7, parse_math=False)
    for sink in shown.sinks:
        last.get_xticklabels()[sink].set(color=RED, fontweight="bold")
    return canvas


def maps(looks: Mapping[str, Look], shown: Shown) -> Figure:
    """Each model's pattern, and below it its tokens in their colours; red ticks: dense's sinks."""
    count = len(looks)
    canvas = Figure(figsize=(2.9 * count, 4.3), layout="constrained")
    grid = canvas.subplots(2, count, squeeze=False, height_ratios=(9, 1))
    for above, below, (name, look) in zip(grid[0], grid[1], looks.items(), strict=True):
        above.imshow(look.pattern, cmap="Blues", vmin=0, vmax=1)
        above.set_xticks(shown.sinks, [str(sink) for sink in shown.sinks], color=RED, fontsize=8)
        above.set(xlabel="key", ylabel="query")
        above.set_title(fill(name, 28), fontsize=9)
        _strip(below, "", look)
    return canvas


def _strip(place: Axes, name: str, look: Look) -> None:
    place.imshow(look.colour[None], aspect="auto")
    place.set_yticks([0], [name])
    place.set_xticks([])
    for spine in place.spines.values():
        spine.set_visible(False)
