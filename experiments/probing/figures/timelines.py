"""A token's way through the depths: how near it is to the first token, how large, how attended to.

The level of a sink is where it is made and how long it lasts (Wong et al. 2025, secondary sinks,
arXiv:2512.22213); both can be read off a row, where dots mark the depths at which their rule
holds, phase by phase (`mech.probes.secondary`). Beside the sinks stand as many other tokens,
drawn at random.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.pictures import figure
from experiments.probing.figures.labels import label
from experiments.report import INK, RED
from mech.probes import secondary


class Levels(NamedTuple):
    """What the stream and the heads make of each token, by depth.

    cosine: with the first token of the same depth. norm: over the median token's of the same
    depth. heads: share of the block's heads in which the token is a sink.
    """

    cosine: Float[np.ndarray, "depth seq"]
    norm: Float[np.ndarray, "depth seq"]
    heads: Float[np.ndarray, "layer seq"]


def level(
    resid: Float[np.ndarray, "seq d_model"],
) -> tuple[Float[np.ndarray, " seq"], Float[np.ndarray, " seq"]]:
    """cos(h_t, h_0) and |h_t| / median_s |h_s| of one depth; 0 where a vector is zero."""
    stream = resid.astype(np.float64)
    norm = np.linalg.norm(stream, axis=-1)
    both = norm * norm[0]
    cosine = np.divide(stream @ stream[0], both, out=np.zeros_like(norm), where=both > 0)
    middle = np.median(norm)
    return cosine, norm / middle if middle > 0 else np.zeros_like(norm)


class Rows(NamedTuple):
    """Tokens to show, each group in the text's order."""

    sinks: Int[np.ndarray, " sink"]
    others: Int[np.ndarray, " other"]


def rows(
    heads: Float[np.ndarray, "layer seq"], guard: int, *, most: int = 16, seed: int = 0
) -> Rows:
    """The tokens that are sinks of most (layer, head) places, and as many others at random.

    The last `guard` tokens are left out of both: few queries see them, so nearly any head seems
    to rest there.
    """
    total = heads.sum(axis=0)
    end = max(1, len(total) - guard)
    total[end:] = 0
    ranked = np.argsort(-total, kind="stable")[:most]
    sinks = np.sort(ranked[total[ranked] > 0])
    plain = np.flatnonzero(total[:end] == 0)
    count = min(len(plain), max(len(sinks), 1))
    others = np.random.default_rng(seed).choice(plain, count, replace=False)
    return Rows(sinks, np.sort(others))


def timelines(tokens: Sequence[str], found: Levels, shown: Rows) -> Figure:
    """Three panels with a row a token: cosine, norm, share of heads; the control below a line."""
    order: list[int] = [*shown.sinks.tolist(), *shown.others.tolist()]
    canvas, (cosine, norm, heads) = figure(12.5, 1.6 + 0.24 * len(order), columns=3)
    blocks = len(found.heads)
    largest = max(float(found.norm[:, order].max()), 2.0)
    _panel(cosine, found.cosine[:, order], "PuOr_r", Normalize(-1, 1), -0.5)
    _panel(
        norm, found.norm[:, order].clip(1 / largest), "PuOr_r", LogNorm(1 / largest, largest), -0.5
    )
    _panel(heads, found.heads[:, order], "Blues", Normalize(0, 1), 0.0)
    cosine.set_title("cosine with the first token")
    norm.set_title("norm / the median token's")
    heads.set_title("share of heads it is a sink of")
    for axes in (cosine, norm):
        axes.set_xlabel("blocks passed")
    heads.set_xlabel("block")
    for axes in (cosine, norm, heads):
        axes.set_xlim(-0.5, blocks + 0.5)
        axes.set_yticks([])
        axes.axhline(len(shown.sinks) - 0.5, color=INK, linewidth=1.2)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[:].set_visible(False)
        canvas.colorbar(axes.images[0], ax=axes, shrink=min(1.0, 6 / (len(order) + 2)))
    depth, row = np.nonzero(sink_like(found)[:, order])
    cosine.plot(depth, row, ".", color=INK, markersize=3)
    names = [f"{label(tokens[i])} ({i})" for i in order]
    cosine.set_yticks(range(len(order)), names, fontsize=8.5, parse_math=False)
    for tick in cosine.get_yticklabels()[: len(shown.sinks)]:
        tick.set(color=RED, fontweight="bold")
    cosine.set_ylabel("sinks, then others at random")
    return canvas


def sink_like(found: Levels) -> Bool[np.ndarray, "depth seq"]:
    """Where a later token is sink-like: |cos| > 0.9 in a phase in which the first is raised."""
    like = np.zeros(found.cosine.shape, bool)
    for phase in secondary.phases(found.norm[:, 0]):
        like |= secondary.sink_like(found.cosine, phase)
    like[:, 0] = False
    return like


def _panel(axes: Axes, values: np.ndarray, cmap: str, norm: Normalize, left: float) -> None:
    """Rows are tokens; `left` is half a block before the first column's middle."""
    depth, count = values.shape
    axes.imshow(
        values.T,
        cmap=cmap,
        norm=norm,
        aspect="auto",
        extent=(left, left + depth, count - 0.5, -0.5),
    )
