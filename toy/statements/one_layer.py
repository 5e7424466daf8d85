"""N0: one attention layer without positions cannot know which numbers follow [SEP].

Its output at the last token depends on x_T and on the *multiset* of the tokens before it, whatever
the width, the heads or the MLP. k = min(t-1, n-1) numbers X before [SEP] and k numbers -X after it
can be swapped: the output stays, the mean moves by 2kX/n, so that the worst error is at least kX/n.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy.inputs import check_magnitude, check_segment
from toy.statements import cases, literal
from toy.statements.cases import over
from toy.statements.claim import Claim


def least_error(T: int, t: int, X: float) -> float:
    """X min(t - 1, n - 1) / n: what no function of (x_T, multiset) can go below on [-X, X]^T.

    Attained over all such functions by the middle of the possible means. Raises `NoSegment`,
    `NoMagnitude`, `NotFinite`.
    """
    check_segment(T, t)
    check_magnitude(X)
    return X * min(t - 1, T - t - 1) / (T - t)


def swapped(
    x: Float[np.ndarray, "*batch seq"], t: int, X: float
) -> tuple[Float[np.ndarray, "*batch seq"], Float[np.ndarray, "*batch seq"]]:
    """x with k times X before [SEP] and -X after it, both from the start; and the reverse."""
    k = min(t - 1, x.shape[-1] - t - 1)
    one, other = x.copy(), x.copy()
    one[..., :k], one[..., t : t + k] = X, -X
    other[..., :k], other[..., t : t + k] = -X, X
    return one, other


class Net(NamedTuple):
    """Embedding x a + p or a vector for [SEP]; attention; a tanh layer and x_T are read out."""

    number: Float[np.ndarray, "case 2 d_model"]  # a and p
    sep: Float[np.ndarray, "case d_model"]
    QK: Float[np.ndarray, "case d_model d_model"]
    V: Float[np.ndarray, "case d_model d_model"]
    hidden: Float[np.ndarray, "case d_model d_mlp"]
    out: Float[np.ndarray, "case d_mlp"]
    skip: Float[np.ndarray, " case"]


def draw(rng: np.random.Generator, n: int, d_model: int = 5, d_mlp: int = 7) -> Net:
    """Random nets; a third of them reads out nothing but x_T, which is the best of them."""
    scale = np.exp(rng.normal(size=(n, 1, 1)))
    square = (n, d_model, d_model)
    return Net(
        rng.normal(size=(n, 2, d_model)),
        2 * rng.normal(size=(n, d_model)),
        scale * rng.normal(size=square),
        rng.normal(size=square),
        rng.normal(size=(n, d_model, d_mlp)),
        rng.normal(size=(n, d_mlp)) * rng.choice([0.0, 0.1, 1.0], (n, 1)),
        rng.normal(size=n) * rng.integers(0, 2, n),
    )


def apply(
    net: Net, x: Float[np.ndarray, "case seq"], t: int
) -> tuple[Float[np.ndarray, " case"], Float[np.ndarray, " case"]]:
    """The output at the last token, and a bound on its rounding."""
    e = x[..., None] * net.number[:, None, 0] + net.number[:, None, 1]
    e[:, t - 1] = net.sep
    pattern, off = literal.attend(e, net.QK, np.zeros(len(x)))
    read = e[:, -1] + (pattern[:, -1:] @ (e @ net.V))[:, 0]
    size = np.abs(e[:, -1]) + (np.abs(e) @ np.abs(net.V)).max(axis=1)
    units = np.tanh((read[:, None] @ net.hidden)[:, 0])
    steep = (size[:, None] @ np.abs(net.hidden))[:, 0] * np.abs(net.out)
    room = (off + 64 * literal.UNIT) * steep.sum(axis=1)
    room = room + 64 * literal.UNIT * (np.abs(net.out).sum(axis=1) + np.abs(net.skip * x[:, -1]))
    return (units * net.out).sum(axis=1) + net.skip * x[:, -1], room


def ratios(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """X min(t-1, n-1)/n over the larger error of a random net on the two inputs."""
    found = []
    for size in cases.groups(n):
        T, t = cases.shape(rng, t_least=2, n_least=2)
        X = cases.magnitude(rng)
        rest = rng.uniform(-X, X, (size, T)) * rng.integers(0, 2, (size, 1))
        net = draw(rng, size)
        worst, room = np.zeros(size), np.full(size, 4 * T * literal.UNIT * X)
        for x in swapped(rest, t, X):
            f, own = apply(net, x, t)
            worst = np.maximum(worst, np.abs(f - x[:, t:].mean(axis=1)))
            room = room + own
        found.append(over(np.full(size, least_error(T, t, X)), worst + room))
    return np.concatenate(found)


CLAIMS = {
    "N0: one layer": Claim(
        "sup |f - m| >= X min(t-1, n-1)/n for every function of (x_T, multiset of the rest)",
        "N0",
        ratios,
    )
}
