"""A sharper bound than Theorem B: who crowds whom, counted. Proof: docs/floats.md.

Let f be the output and suppose f <= m. With R_j = r_j e^{s-1}, G = q (s-1), and the numbers after
[SEP] above f (their excess y_j = x_j - f) and below it (z_j = f - x_j),

    n (m - f) <= sum_below z_j expm1(G (a_j - a)) + e^{-G a} ((t-1)(f - v) + e^{-G (1 - a_t)} f),
    a = 1 / (1 + e^{1-s} R),  R >= the mean of R_j over those above, weighted by y_j.

R counts each pair above f once, so that n numbers crowd each other half as much as Theorem B says.
It depends on three numbers: f, the mean v before [SEP], and c = sum z_j / (X + f), how many are
below. They fill a box; `position_bound` covers it with cells, bounds the right side on each cell
from its ends, and splits the worst cells. Crowds are in units of e^{X^2}.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy.bounds import error_bound, least_sink
from toy.logs import log_sigmoid, quiet

ROUNDS, SPLIT = 6, 256
FIRST_OUTPUTS, FIRST_MEANS = 16, 4
_OVERFLOW, _MOST = 700.0, 1e300
"""Exponents and gains are cut here: e^700 is more than any error can be, which caps the bound."""


class _Cells(NamedTuple):
    """Ends of f, of v and of c; every field has one axis, the cells."""

    f: Float[np.ndarray, "2 cell"]
    v: Float[np.ndarray, "2 cell"]
    c: Float[np.ndarray, "2 cell"]

    def take(self, which: np.ndarray) -> "_Cells":
        return _Cells(*(ends[:, which] for ends in self))


class _Problem(NamedTuple):
    T: int
    t: int
    X: float
    s_tag: float
    b: float
    d: float
    known: float  # a bound on m - f that holds already

    @property
    def unit(self) -> float:
        """log of e^{1-s} e^{X^2}: log r of a crowd of one unit."""
        return 1 - self.s_tag + self.X**2

    def log_caught(self, crowd: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
        """log(1 / (1 + r)), of a crowd in units of e^{X^2}."""
        return log_sigmoid(-self.unit - np.log(crowd))


def _ends(low: float, high: float, parts: int) -> Float[np.ndarray, "2 parts"]:
    edges = np.linspace(low, high, parts + 1)
    return np.stack([edges[:-1], edges[1:]])


def _first_cells(at: _Problem) -> _Cells:
    fewest = max(at.T - at.t - 1, 0)  # below f: at least one number is above it
    axes = (
        _ends(-at.X, at.X, FIRST_OUTPUTS),
        _ends(-at.X, at.X, FIRST_MEANS),
        _ends(0.0, fewest, max(fewest, 1)),
    )
    index = np.meshgrid(*(np.arange(ends.shape[1]) for ends in axes), indexing="ij")
    return _Cells(*(ends[:, i.ravel()] for ends, i in zip(axes, index, strict=True)))


def _halves(cells: _Cells) -> _Cells:
    """Eight cells for each: every interval cut in the middle."""
    cut = [np.stack([low, (low + high) / 2, high]) for low, high in cells]
    parts = [
        [ends[half : half + 2] for ends, half in zip(cut, halves, strict=True)]
        for halves in product((0, 1), repeat=3)
    ]
    return _Cells(*(np.concatenate(ends, axis=1) for ends in zip(*parts, strict=True)))


def _least_crowds(at: _Problem) -> Float[np.ndarray, " n"]:
    """min over w of e^{w^2} + (j-2) e^{-wX}, j > t, from below: R_j for |x_j| = w is no less."""
    w = np.linspace(0, at.X, 257)[:, None]
    others = np.arange(at.t - 1, at.T - 1)
    itself = np.exp(w[:-1] ** 2 - at.X**2)
    return (itself + others * np.exp(-w[1:] * at.X - at.X**2)).min(axis=0)


class _Crowds(NamedTuple):
    above: Float[np.ndarray, " cell"]  # R, from above
    last: Float[np.ndarray, " cell"]  # R_T, from above
    possible: np.ndarray  # False: no x has its f, v and c in this cell


def _crowds(at: _Problem, cells: _Cells) -> _Crowds:
    X, n, (f, f_high), (v, v_high), (c, c_high) = at.X, at.T - at.t, *cells
    near = np.exp(np.where(f_high > 0, f_high * X, f * f) - X * X)  # a pair with one at f
    far = np.exp(-f * X - X * X)  # a pair of one above f and one at -X
    before = (at.t - 1) * ((1 + v_high / X) + far * (1 - v_high / X)) / 2
    fewest = c * (f + X) / (X - f)
    room = np.maximum(X - f_high, np.finfo(np.float64).tiny)
    most = np.minimum(n - c, (c_high * (f_high + X) + n * at.known) / room)
    slope = 0.5 - near
    above = before + near * (n - c) + far * c_high + 0.5
    above += np.where(slope > 0, slope * most, slope * fewest)
    mean = np.minimum(f_high + at.known, X)
    last = before + n * ((1 + mean / X) + far * (1 - mean / X)) / 2
    if n > 1:  # x_T may be below f
        ends = [((at.t - 1) * v + n * f), ((at.t - 1) * v_high + n * mean)]
        tilt = np.abs(ends).max(axis=0) / (at.T - 1) / X
        last = np.maximum(last, (at.T - 1) * ((1 + tilt) + (1 - tilt) * np.exp(-2 * X * X)) / 2)
    possible = fewest <= n - c
    above = np.where(possible, np.minimum(above, at.T - 1), at.T - 1)
    return _Crowds(above, np.minimum(last, at.T - 1), possible)


def _gains(at: _Problem, crowds: _Crowds, calm: Float[np.ndarray, " n"]) -> list[np.ndarray]:
    """The least and the greatest G of each cell: what is bounded is convex in G."""
    s, pull = at.s_tag, abs(at.b) * at.X
    everywhere = at.d * (s - 1) * least_sink(at.T, at.X, s) - pull
    low = np.maximum(everywhere, at.d * (s - 1) * np.exp(at.log_caught(crowds.last)) - pull)
    high = at.d * (s - 1) * np.exp(at.log_caught(calm[-1:])) + pull
    return [np.minimum((s - 1) * q, _MOST) for q in (low, np.broadcast_to(high, low.shape))]


def _on_cells(at: _Problem, cells: _Cells, calm: Float[np.ndarray, " n"]) -> np.ndarray:
    """An upper end of m - f on every cell; 0 where a cell is impossible."""
    (f, f_high), (v, _), c = cells
    crowds = _crowds(at, cells)
    caught, calmest = at.log_caught(crowds.above), at.log_caught(calm)
    ahead = (crowds.above[:, None] - calm) * np.exp(at.unit + calmest + caught[:, None])
    # Those below f gain most at the first positions; 0 <= z_j <= X + f and their sum is given.
    least, most = np.clip(c[..., None] - np.arange(len(calm)), 0, 1)
    missed = np.exp(log_sigmoid(np.log(at.t - 1.0) - np.float64(at.s_tag) * (at.s_tag - 1)))
    found = np.zeros_like(f)
    for gain in _gains(at, crowds, calm):
        each = np.expm1(np.minimum(gain[:, None] * ahead, _OVERFLOW))
        uneven = np.where(each > 0, each * most, each * least).sum(axis=1)
        uneven *= at.X + np.where(uneven > 0, f_high, f)
        leak = (at.t - 1) * np.maximum(f_high - v, 0)
        leak += np.maximum(f_high, 0) * np.exp(-gain * missed)
        found = np.maximum(found, (uneven + np.exp(-gain * np.exp(caught)) * leak) / len(calm))
    return np.where(crowds.possible, np.minimum(found, at.X - f), 0.0)


def position_bound(
    T: int, t: int, X: float, *, s_tag: float, b: float = 0.0, d: float = 1.0
) -> float:
    """|f - m| <= the greatest of the cells' bounds, and never more than `error_bound`.

    About 1.2 times the worst error that a search finds where Theorem B has 1.8 (medians over
    settings; `ctr toy verify`), in some 10 ms. Raises as `error_bound`.
    """
    plain = error_bound(T, t, X, s_tag=s_tag, b=b, d=d)
    at = _Problem(T, t, X, s_tag, b, d, min(plain, 2 * X))
    with quiet():
        calm = _least_crowds(at)
        cells = _first_cells(at)
        found, left_out = _on_cells(at, cells, calm), 0.0
        for _ in range(ROUNDS):
            order = np.argsort(-found)
            if len(order) > SPLIT:
                left_out = max(left_out, float(found[order[SPLIT]]))
            worst = order[:SPLIT][found[order[:SPLIT]] > left_out]
            if not len(worst):
                break
            cells = _halves(cells.take(worst))
            found = _on_cells(at, cells, calm)
    return float(min(plain, max(left_out, found.max())))
