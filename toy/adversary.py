"""The worst input that a search finds: what a bound over all inputs is compared with.

|f - m| is large where the logits after [SEP] are uneven and split as the numbers are, or where
much leaks to numbers on the other side of the mean. Which numbers crowd a row is a matter of
signs, so that the worst inputs are made of few blocks: `blocks` lists them all, and `climb` goes
on from the best.
"""

from collections.abc import Callable
from itertools import product

import numpy as np
from jaxtyping import Float

from toy.theorem import residual

Score = Callable[[np.ndarray], np.ndarray]
"""What is to be made large: inputs, along the last axis, to one number each."""

PARTS = 16
"""A coordinate's first sweeps try the ends of this many intervals of [-X, X]."""
TABLE = 2**22
"""Entries of (query, key) tables that `starts_of` scores at once."""
FINEST = 11
"""The last sweep's steps are X / 2^FINEST long."""


def blocks(T: int, t: int, X: float) -> Float[np.ndarray, "starts seq"]:
    """All x of four blocks: before [SEP], k numbers after it, the others, and x_T.

    Values are -X, 0, X, and for the k numbers also -v and v, v the value of a row that the others
    crowd least: it minimises e^{v^2} + (t - 1) e^{-vX}.
    """
    grid = np.linspace(0, X, 4 * PARTS + 1)
    calm = grid[np.argmin(np.logaddexp(grid**2, np.log(max(t - 1, 1e-300)) - grid * X))]
    corners = (-X, 0.0, X)
    i = np.arange(1, T + 1)
    found = [
        np.where(i <= t, before, np.where(i <= t + k, early, late))
        for before, early, late, k in product(
            corners, (*corners, -calm, calm), corners, range(T - t)
        )
    ]
    x = np.repeat(np.unique(np.stack(found), axis=0), 4, axis=0)
    x[1::4, -1], x[2::4, -1], x[3::4, -1] = corners
    return x


def starts_of(
    rng: np.random.Generator, score: Score, T: int, t: int, X: float, n: int
) -> Float[np.ndarray, "n seq"]:
    """Half of n the best blocks, the best of each pattern of signs among them; the rest random."""
    x = blocks(T, t, X)
    order = np.argsort(-_in_parts(score, x), kind="stable")
    _, first = np.unique(np.sign(x[order][:, [0, t, -1]]), axis=0, return_index=True)
    leaders = order[np.sort(first)][: n // 4]
    best = list(dict.fromkeys([*leaders, *order]))[: (n + 1) // 2]
    corners = rng.choice([-X, X], (n // 4, T))
    inside = rng.uniform(-X, X, (n - len(best) - len(corners), T))
    return np.concatenate([x[best], corners, inside])


def _in_parts(score: Score, x: Float[np.ndarray, "starts seq"]) -> Float[np.ndarray, " starts"]:
    """A score's table of (query, key) a row of x would not fit the memory for long sequences."""
    rows = max(1, TABLE // x.shape[1] ** 2)
    return np.concatenate([score(x[at : at + rows]) for at in range(0, len(x), rows)])


def climb(
    rng: np.random.Generator,
    score: Score,
    x: Float[np.ndarray, "starts seq"],
    t: int,
    X: float,
    sweeps: int = 2,
) -> Float[np.ndarray, "starts seq"]:
    """From each row of x, one coordinate after the other to the best value tried; never down.

    The first `sweeps` try a grid over [-X, X]; the next ones steps around the value held, each
    half as long as before.
    """
    grid = np.broadcast_to(np.linspace(-X, X, PARTS + 1), (len(x), PARTS + 1))
    for step in [0.0] * sweeps + [X * 2.0**-k for k in range(3, FINEST + 1)]:
        for i in rng.permutation(np.delete(np.arange(x.shape[1]), t - 1)):
            near = np.clip(x[:, i, None] + step * np.array([-1, -0.5, 0.5, 1]), -X, X)
            values = near if step else grid
            tried = np.repeat(x[:, None], values.shape[1] + 1, axis=1)
            tried[:, 1:, i] = values
            x = tried[np.arange(len(x)), score(tried).argmax(axis=1)]
    return x


def worst_inputs(
    T: int,
    t: int,
    X: float,
    s_tag: float,
    b: float = 0.0,
    d: float = 1.0,
    *,
    starts: int = 10,
    sweeps: int = 2,
    seed: int = 0,
) -> Float[np.ndarray, "starts seq"]:
    """`climb` of |f - m| from `starts_of`. Raises as `residual`."""

    def error(x: np.ndarray) -> np.ndarray:
        return np.abs(residual(x, t, s_tag=s_tag, b=b, d=d))

    rng = np.random.default_rng(seed)
    return climb(rng, error, starts_of(rng, error, T, t, X, starts), t, X, sweeps)
