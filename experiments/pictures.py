"""Pictures as functions of arrays: no model, no run, no state."""

from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.report import BLUE, GREEN, INK, ORANGE, RED


def figure(
    width: float, height: float, rows: int = 1, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """A figure in the house style and its axes, row by row."""
    canvas = Figure(figsize=(width, height), layout="constrained")
    grid = canvas.subplots(rows, columns, squeeze=False)
    return canvas, list(grid.flat)


def readable(token: str) -> str:
    """A token in one line."""
    return token.replace("\n", "⏎")


def attention_map(
    tokens: Sequence[str],
    pattern: Float[np.ndarray, "query key"],
    sinks: Int[np.ndarray, " sink"],
    title: str,
) -> Figure:
    """One head's pattern, tokens on both axes, its sinks marked."""
    canvas, (axes,) = figure(8.2, 7.6)
    image = axes.imshow(pattern, cmap="Blues", vmin=0, vmax=1)
    canvas.colorbar(image, ax=axes, shrink=0.75, label="attention")
    names = [readable(token).strip() or "␣" for token in tokens]
    # A token may hold dollars, which are no mathematics here.
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=9, parse_math=False)
    axes.set_yticks(range(len(names)), names, fontsize=9, parse_math=False)
    for sink in sinks:
        axes.get_xticklabels()[sink].set(color=RED, fontweight="bold")
        axes.get_yticklabels()[sink].set(color=RED, fontweight="bold")
    axes.set(xlabel="key (attended to)", ylabel="query", title=title)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return canvas


def sink_grid(
    first: Float[np.ndarray, "layer head"], later: Float[np.ndarray, "layer head"]
) -> Figure:
    """Layer by head: how often the first token is a sink, and how many later ones there are."""
    canvas, (left, right) = figure(10, 6.2, columns=2)
    for axes, values, cmap, label, title in (
        (left, first, "Blues", "share of sequences", "first token is a sink"),
        (right, later, "Oranges", "mean number a sequence", "later sinks (guarded)"),
    ):
        top = 1.0 if axes is left else max(float(values.max()), 1e-9)
        image = axes.imshow(values, cmap=cmap, vmin=0, vmax=top, aspect="auto", origin="lower")
        canvas.colorbar(image, ax=axes, label=label, shrink=0.9)
        axes.set(xlabel="head", ylabel="layer", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return canvas


def depth_profile(peak_to_median: Float[np.ndarray, " depth"]) -> Figure:
    """Largest over median magnitude of the residual stream, by depth."""
    canvas, (axes,) = figure(8, 3.6)
    axes.plot(peak_to_median, marker="o", markersize=4, color=BLUE)
    axes.axhline(
        1000, color=INK, linewidth=0.8, linestyle=":", label="1000: massive (Sun et al. 2024)"
    )
    axes.set_yscale("log")  # after the line: a stream of zeros has nothing to scale by
    axes.legend(loc="best", fontsize=9)
    axes.set(xlabel="blocks passed", ylabel="max |h| / median |h|", title="residual stream")
    return canvas


def coloured_tokens(
    label: str,
    tokens: Sequence[str],
    rgb: Float[np.ndarray, "seq 3"],
    sinks: Int[np.ndarray, " sink"],
) -> str:
    """A sentence whose tokens stand on their colours, sinks framed; HTML, escaped."""
    spans = []
    for index, (token, colour) in enumerate(zip(tokens, rgb, strict=True)):
        # Half way to white, so that black letters can be read on every colour.
        red, green, blue = (round(255 * (0.5 + 0.5 * float(c))) for c in colour)
        kind = ' class="sink"' if index in sinks else ""
        spans.append(
            f'<span{kind} style="background:rgb({red},{green},{blue})">'
            f"{escape(readable(token))}</span>"
        )
    return f'<div class="tokens"><span class="label">{escape(label)}</span>{"".join(spans)}</div>'


def bound_against_error(
    s_tag: Float[np.ndarray, " scale"],
    curves: dict[str, Float[np.ndarray, " scale"]],
    title: str,
) -> Figure:
    """Errors and bound of the averaging theorem over the embedding scale, on a log scale."""
    canvas, (axes,) = figure(8.2, 4.6)
    looks = [(INK, "-", 2.2), (BLUE, "-", 2.0), (GREEN, "--", 1.4), (RED, ":", 1.8)]
    for (name, values), (colour, line, width) in zip(curves.items(), looks, strict=False):
        finite = np.isfinite(values) & (values > 0)
        axes.semilogy(
            s_tag[finite], values[finite], label=name, color=colour, linestyle=line, linewidth=width
        )
    axes.set(xlabel=r"$s_\mathrm{tag}$", ylabel="|output - mean of the segment|", title=title)
    axes.legend(loc="lower left")
    return canvas


def training(
    steps: Int[np.ndarray, " checkpoint"],
    s_tag: Float[np.ndarray, "seed checkpoint"],
    loss: Float[np.ndarray, "seed checkpoint"],
    found: Bool[np.ndarray, " seed"],
) -> Figure:
    """Every seed's embedding scale and loss over training; found seeds blue, the others red."""
    canvas, (left, right) = figure(10.5, 4.2, columns=2)
    for seed, hit in enumerate(found):
        look = {"color": BLUE if hit else RED, "alpha": 0.35 if hit else 0.9, "linewidth": 1.1}
        left.plot(steps, s_tag[seed], **look)
        right.semilogy(steps, np.maximum(loss[seed], 1e-12), **look)
    n = len(found)
    left.plot([], [], color=BLUE, label=f"found the mechanism ({int(found.sum())} of {n})")
    left.plot([], [], color=RED, label=f"did not ({n - int(found.sum())} of {n})")
    left.legend(loc="best", fontsize=9)
    left.set(xlabel="step", ylabel=r"$s_\mathrm{tag}$", title="embedding scale of [SEP]")
    right.set(xlabel="step", ylabel="loss / Var(target)", title="loss")
    return canvas


def forest(
    names: Sequence[str],
    mean: Float[np.ndarray, " row"],
    low: Float[np.ndarray, " row"],
    high: Float[np.ndarray, " row"],
    label: str,
    title: str,
) -> Figure:
    """One row an intervention: its effect with the 95% interval."""
    canvas, (axes,) = figure(9, 0.8 + 0.42 * len(names))
    rows = np.arange(len(names))[::-1]
    axes.hlines(rows, low, high, color=BLUE, linewidth=3, alpha=0.6)
    axes.plot(mean, rows, "o", color=INK, markersize=5)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_yticks(rows, names)
    axes.set(xlabel=label, title=title)
    return canvas


def bars(
    groups: Sequence[str], series: dict[str, Sequence[float]], label: str, title: str
) -> Figure:
    """Horizontal bars side by side, group by group from the top, their values written on them."""
    canvas, (axes,) = figure(9.5, 0.9 + 0.34 * len(groups) * len(series))
    width = 0.8 / len(series)
    for index, (name, values) in enumerate(series.items()):
        at = -np.arange(len(groups)) - (index - (len(series) - 1) / 2) * width
        drawn = axes.barh(at, values, width * 0.92, label=name, color=[BLUE, ORANGE][index % 2])
        axes.bar_label(drawn, fmt=lambda v: f"{v:.2f}", fontsize=9, padding=3)
    axes.set_yticks(-np.arange(len(groups)), groups)
    axes.set_xlim(0, 1.08)
    axes.set(xlabel=label, title=title)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.08), ncols=len(series), fontsize=9)
    return canvas
