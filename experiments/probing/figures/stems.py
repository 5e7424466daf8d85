"""Stem plots: how large each dimension is, in a token's own median, with the outliers named.

After figures 4 and 5 of Zhang & Papyan 2025 (arXiv:2502.00919). The control is the same vectors
in other axes: a rotation keeps every length and every angle, so that what stands out before it
and not after it belongs to the dimensions and not to the vectors.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.pictures import figure
from experiments.report import BLUE, INK, RED

FACTOR = 6.0
"""A dimension above this many medians is named: the limit of `mech.probes.outliers`."""
NAMED = 5
"""Dimensions to name in one panel, the largest."""
VISIBLE = 0.05
"""Of the largest: what is still seen as a stem beside it."""


class Stem(NamedTuple):
    """Mean over n tokens of |x_j| / median_i |x_i|, in the model's axes and in rotated ones."""

    what: str
    tokens: int
    size: Float[np.ndarray, " d"]
    rotated: Float[np.ndarray, " d"]


def stem(what: str, vectors: Float[np.ndarray, "token d"], *, seed: int = 0) -> Stem:
    """The magnitudes of some tokens' vectors; a token that is zero throughout counts as 0."""
    return Stem(what, len(vectors), _medians(vectors), _medians(rotated(vectors, seed=seed)))


def rotated(
    vectors: Float[np.ndarray, "token d"], *, seed: int = 0
) -> Float[np.ndarray, "token d"]:
    """x H D: random signs D, then the orthogonal H_ij = (cos 2πij/d + sin 2πij/d) / √d.

    Hartley's transform: no entry of H is larger than √(2/d), so that one large coordinate is
    spread over all of them, and no d × d matrix is made.
    """
    d = vectors.shape[1]
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], d)
    waves = np.fft.fft(vectors * signs, axis=1)
    return (waves.real - waves.imag) / np.sqrt(d)


def _medians(vectors: np.ndarray) -> np.ndarray:
    size = np.abs(vectors).astype(np.float64)
    median = np.median(size, axis=1, keepdims=True)
    return np.divide(size, median, out=np.zeros_like(size), where=median > 0).mean(axis=0)


def outliers(size: Float[np.ndarray, " d"]) -> Int[np.ndarray, " named"]:
    """The dimensions above FACTOR medians, largest first, at most NAMED of them.

    One that is lost beside the largest is not named: its name would stand on no stem.
    """
    largest = np.argsort(-size, kind="stable")[:NAMED]
    return largest[size[largest] > max(FACTOR, VISIBLE * float(size.max()))]


def stems(rows: Sequence[Stem]) -> Figure:
    """A row of panels for each array: in the model's axes, and the control on the same scale."""
    canvas, panels = figure(11.5, 2.5 * len(rows) + 0.3, rows=len(rows), columns=2)
    for number, row in enumerate(rows):
        left, right = panels[2 * number : 2 * number + 2]
        top = 1.16 * max(float(row.size.max()), float(row.rotated.max()), FACTOR)
        _draw(left, row.size, top)
        _draw(right, row.rotated, top)
        plural = "" if row.tokens == 1 else "s"
        left.set_title(f"{row.what} (n = {row.tokens} token{plural})")
        left.set_ylabel("|x| / median |x|")
        right.set_title(f"control: rotated axes, largest {row.rotated.max():.1f}")
    for axes in panels[-2:]:
        axes.set_xlabel("dimension")
    return canvas


def _draw(axes: Axes, size: np.ndarray, top: float) -> None:
    named = outliers(size)
    dims = np.arange(len(size))
    plain = np.setdiff1d(dims, named)
    axes.vlines(plain, 0, size[plain], color=BLUE, linewidth=0.8)
    axes.vlines(named, 0, size[named], color=RED, linewidth=1.2)
    axes.plot(named, size[named], "o", color=RED, markersize=4)
    axes.axhline(FACTOR, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlim(-0.02 * len(size) - 0.5, 1.02 * len(size) - 0.5)
    axes.set_ylim(0, top)
    for place in _placed(named, size[named], len(size), top):
        axes.text(place.x, place.y, str(place.dim), color=RED, fontsize=9, ha=place.side)


class _Name(NamedTuple):
    """Where a dimension's name stands: from (x, y) upwards, to which side of x."""

    dim: int
    x: float
    y: float
    side: str
    left: float
    right: float


def _placed(dims: np.ndarray, sizes: np.ndarray, d: int, top: float) -> list[_Name]:
    """Each name above its stem, or beside it where another name or stem is in the way."""
    placed: list[_Name] = []
    for dim, size in zip(dims.tolist(), sizes.tolist(), strict=True):
        wide, gap = 0.017 * d * len(str(dim)), 0.012 * d
        ways = [
            _Name(dim, dim, size + 0.035 * top, "center", dim - wide / 2, dim + wide / 2),
            _Name(dim, dim + gap, size - 0.02 * top, "left", dim + gap, dim + gap + wide),
            _Name(dim, dim - gap, size - 0.02 * top, "right", dim - gap - wide, dim - gap),
        ]
        placed.append(min(ways, key=lambda way: _in_the_way(way, placed, dims, sizes, top)))
    return placed


def _in_the_way(
    name: _Name, placed: list[_Name], dims: np.ndarray, sizes: np.ndarray, top: float
) -> int:
    """Names and named stems that this place of a name would hide."""
    names = sum(
        n.left < name.right and name.left < n.right and abs(n.y - name.y) < 0.075 * top
        for n in placed
    )
    across = (name.left < dims) & (dims < name.right) & (dims != name.dim)
    return names + int((across & (sizes > name.y)).sum())
