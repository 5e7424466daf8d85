"""Pictures of a trained larger toy, as functions of arrays."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.pictures import figure
from experiments.report import BLUE, GREEN, INK, ORANGE, RED


def attention(pattern: Float[np.ndarray, "layer head query key"], t: int) -> Figure:
    """Every head's pattern on one sequence; [SEP] at t, counted from 1, is marked."""
    layers, heads, seq, _ = pattern.shape
    canvas, panels = figure(3.1 * heads + 0.9, 3.2 * layers, rows=layers, columns=heads)
    image = None
    for index, axes in enumerate(panels):
        layer, head = divmod(index, heads)
        image = axes.imshow(pattern[layer, head], cmap="Blues", vmin=0, vmax=1)
        axes.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=10)
        axes.set_xticks([0, t - 1, seq - 1], ["1", "[SEP]", str(seq)], fontsize=9)
        axes.set_yticks([0, t - 1, seq - 1], ["1", "[SEP]", str(seq)], fontsize=9)
        axes.get_xticklabels()[1].set(color=RED, fontweight="bold")
        axes.get_yticklabels()[1].set(color=RED, fontweight="bold")
    panels[0].set(ylabel="query")
    panels[-1].set(xlabel="key (attended to)")
    if image is not None:
        canvas.colorbar(image, ax=panels, shrink=0.6, label="attention")
    return canvas


def stream(
    coordinates: Sequence[Float[np.ndarray, "seq 2"]],
    shares: Sequence[Float[np.ndarray, " 2"]],
    titles: Sequence[str],
    t: int,
) -> Figure:
    """Tokens of one sequence in the plane of their principal components, by side of [SEP]."""
    canvas, panels = figure(4.6 * len(titles), 4.0, columns=len(titles))
    for axes, points, share, title in zip(panels, coordinates, shares, titles, strict=True):
        for name, colour, marker, rows in (
            ("before [SEP]", BLUE, "o", slice(0, t - 1)),
            ("[SEP]", RED, "*", slice(t - 1, t)),
            ("after [SEP]", ORANGE, "s", slice(t, None)),
        ):
            size = 170 if marker == "*" else 34
            axes.scatter(*points[rows].T, s=size, c=colour, marker=marker, alpha=0.85, label=name)
        axes.set(
            title=title,
            xlabel=f"component 1 ({share[0]:.0%} of variance)",
            ylabel=f"component 2 ({share[1]:.0%})",
        )
    panels[0].legend(fontsize=9)
    return canvas


def spectra(
    kinds: dict[
        str,
        tuple[
            Float[np.ndarray, "one k"], Float[np.ndarray, "other k"], Float[np.ndarray, "start k"]
        ],
    ],
) -> Figure:
    """Singular values over the largest: sink heads, other heads, and before training."""
    canvas, panels = figure(4.6 * len(kinds), 3.8, columns=len(kinds))
    for axes, (title, groups) in zip(panels, kinds.items(), strict=True):
        for values, colour, label in zip(
            groups,
            (RED, BLUE, INK),
            ("sink or release heads", "other heads", "before training"),
            strict=True,
        ):
            _spectrum(axes, values, colour, label)
        axes.set(
            title=title, xlabel="index", ylabel="singular value over the first", ylim=(0, 1.05)
        )
        axes.legend(fontsize=9)  # the numbers of heads differ
    return canvas


def _spectrum(axes: Axes, values: Float[np.ndarray, "head k"], colour: str, label: str) -> None:
    if not len(values):
        return
    scaled = values / values[:, :1]
    index = np.arange(1, scaled.shape[1] + 1)
    low, middle, high = np.quantile(scaled, [0.05, 0.5, 0.95], axis=0)
    axes.fill_between(index, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(
        index, middle, marker="o", markersize=4, color=colour, label=f"{label} ({len(values)})"
    )


def breaking(
    variants: dict[str, dict[str, Float[np.ndarray, " seed"]]], threshold: float
) -> Figure:
    """Error of every seed after each change, log scale; changes under controls in one colour."""
    canvas, panels = figure(3.6 * len(variants) + 1.6, 4.2, columns=len(variants))
    for axes, (name, changes) in zip(panels, variants.items(), strict=True):
        for row, (change, values) in enumerate(changes.items()):
            colour = GREEN if change.startswith("control") else RED
            colour = INK if change == "untouched" else colour
            jitter = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else np.zeros(1)
            axes.scatter(np.maximum(values, 1e-5), row + jitter, s=16, color=colour, alpha=0.75)
        axes.axvline(threshold, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xscale("log")
        axes.set_yticks(range(len(changes)), list(changes) if axes is panels[0] else [], fontsize=9)
        axes.set(title=name, xlabel="variance unexplained", ylim=(len(changes) - 0.5, -0.5))
    return canvas
