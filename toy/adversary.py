"""The worst input that a search finds: what a bound over all inputs is compared with.

|f - m| is large where the logits after [SEP] are uneven and split as the numbers are, or where
much leaks to numbers on the other side of the mean. Which numbers crowd a row is a matter of
signs, so that the worst inputs are made of few blocks: `blocks` lists them all, and `worst_inputs`
climbs from the best.
"""

from itertools import product

import numpy as np
from jaxtyping import Float

from toy.theorem import residual

PARTS = 16
"""A coordinate's first sweep tries this many intervals of [-X, X]."""


def blocks(T: int, t: int, X: float) -> Float[np.ndarray, "starts seq"]:
    """All x of four blocks: before [SEP], k numbers after it, the others, and x_T.

    Values are -X, 0, X, and for the k numbers also -v and v, v the value of a row that the others
    crowd least: it minimises e^{v^2} + (t - 1) e^{-vX}.
    """
    grid = np.linspace(0, X, 4 * PARTS + 1)
    calm = grid[np.argmin(grid**2 + np.log1p((t - 1) * np.exp(-grid * X - grid**2)))]
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
    rng: np.random.Generator, T: int, t: int, X: float, s_tag: float, b: float, d: float, n: int
) -> Float[np.ndarray, "n seq"]:
    """Half of n the best blocks, the best of each pattern of signs among them; the rest random."""
    x = blocks(T, t, X)
    errors = np.abs(residual(x, t, s_tag=s_tag, b=b, d=d))
    order = np.argsort(-errors, kind="stable")
    kinds = np.sign(x[order][:, [0, t, -1]])
    _, first = np.unique(kinds, axis=0, return_index=True)
    leaders = order[np.sort(first)]
    best = list(dict.fromkeys([*leaders[: n // 4], *order]))[: (n + 1) // 2]
    corners = rng.choice([-X, X], (n // 4, T))
    inside = rng.uniform(-X, X, (n - len(best) - len(corners), T))
    return np.concatenate([x[best], corners, inside])


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
    """Ascent of |f - m| from `starts_of`, one coordinate after the other; never leaves the box.

    The first `sweeps` try a grid over [-X, X]; the next ones steps around the value held, each
    half as long as before, down to X / 2000.

    Raises as `residual`.
    """
    rng = np.random.default_rng(seed)
    x = starts_of(rng, T, t, X, s_tag, b, d, starts)
    grid = np.linspace(-X, X, PARTS + 1)
    reach = [X * 2.0**-k for k in range(3, 12)]
    for step in [None] * sweeps + reach:
        for i in rng.permutation(np.delete(np.arange(T), t - 1)):
            if step is None:
                values = np.broadcast_to(grid, (starts, len(grid)))
            else:
                values = np.clip(x[:, i, None] + step * np.array([-1, -0.5, 0.5, 1]), -X, X)
            tried = np.repeat(x[:, None], values.shape[1] + 1, axis=1)
            tried[:, 1:, i] = values
            best = np.abs(residual(tried, t, s_tag=s_tag, b=b, d=d)).argmax(axis=1)
            x = tried[np.arange(starts), best]
    return x
