"""Pictures of the experiments on catch, tag, release, from arrays alone."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments.pictures import figure
from experiments.report import BLUE, GREEN, INK, ORANGE, RED, SKY

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
        what = f"{kind} tokens" if kind == kinds[-1] else f"{kind} sinks"
        axes.set_title(f"{what} entering block {block}; largest above {factor:.0f}: {names}")
    panels[-1].set_xlabel("dimension")
    return canvas


def convergence(
    scales: Float[np.ndarray, " scale"], curves: Mapping[str, Float[np.ndarray, " scale"]]
) -> Figure:
    """What is left to the limit on a log scale, beside e^-s and e^-(s² - s)."""
    canvas, (axes,) = figure(8.2, 4.8)
    drawn = (
        ("own", "[SEP] to itself", RED),
        ("after", "tokens after [SEP] to it", BLUE),
        ("readout", "last row of layer 2 to uniform", GREEN),
    )
    for name, label, colour in drawn:
        left = np.asarray(curves[name])
        seen = left > 1e-15
        axes.semilogy(scales[seen], left[seen], color=colour, marker=".", label=label)
    for rate, label in ((scales, "e^-s"), (scales**2 - scales, "e^-(s² - s)")):
        seen = rate < 34
        axes.semilogy(scales[seen], np.exp(-rate[seen]), ":", color=INK, linewidth=1)
        end = (scales[seen][-1] + 0.15, np.exp(-rate[seen][-1]) / 3)
        axes.annotate(label, end, color=INK, fontsize=9, parse_math=False)
    axes.set(xlabel="s_tag", ylabel="left to the limit", title="convergence in s_tag")
    axes.legend(loc="upper right", fontsize=9)
    return canvas


def shares(by_head: Mapping[str, Float[np.ndarray, "layer head"]]) -> Figure:
    """Every head's share of variance, in order of the tags' share; heads at 0 are left out."""
    order = np.argsort(np.ravel(by_head["tags"]), kind="stable")
    order = order[np.ravel(by_head["tags"])[order] > 0]
    canvas, (axes,) = figure(8.6, 4.4)
    for name, label, colour in (
        ("best", "as many principal components", GREEN),
        ("random", "values of random tokens", ORANGE),
        ("tags", "tags of its sinks", BLUE),
    ):
        axes.plot(np.ravel(by_head[name])[order], ".", color=colour, markersize=4, label=label)
    axes.axhspan(0.2, 0.4, color=SKY, alpha=0.15, linewidth=0, label="20 to 40%, as claimed")
    axes.set(xlabel="heads with sinks, in order", ylabel="share of variance", ylim=(0, 1.03))
    axes.set_title("variance of a head's outputs")
    axes.legend(loc="upper left", fontsize=9)
    return canvas


def tags_by_step(
    steps: int,
    s_tag: Mapping[str, Float[np.ndarray, "seed checkpoint"]],
    found: Mapping[str, Float[np.ndarray, " seed"]],
) -> Figure:
    """s_tag of every seed, a panel a start."""
    canvas, panels = figure(4.2 * len(s_tag), 3.6, columns=len(s_tag))
    for axes, (start, curves) in zip(panels, s_tag.items(), strict=True):
        hit = np.asarray(found[start]) > 0
        step = np.linspace(0, steps, np.shape(curves)[1] + 1)[1:]
        for wanted, colour in ((False, INK), (True, BLUE)):
            if (hit == wanted).any():
                axes.plot(step, np.asarray(curves)[hit == wanted].T, color=colour, linewidth=0.5)
        axes.set(xlabel="step", ylabel="s_tag", title=f"{start}: {int(hit.sum())} of {len(hit)}")
    return canvas
