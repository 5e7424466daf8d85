"""N3: identical separators cannot make family F average the last segment.

[SEP] stands at t_1 < t_2, the target is the mean after t_2, n = T - t_2 >= 2, e^{X^2} >= 2. With
n_0 = t_1 - 1 and n_1 = #{t_1 < i < t_2: 2 (i - 1) <= T - 4 + e^{X^2}}, every s, w and M has

    sup |f - m| >= X min(n_0 / (n (1 + n_0)), n_1 / (n (n + n_1))),

already on four inputs with x_T = 0: X or -X in every place before t_1; X or -X at T - 1. A token
sees the separators before it only through r_i / 2, so that a crowded token of the last segment is
tagged less than a lonely one of the segment before.
"""

import numpy as np
from jaxtyping import Float

from toy.errors import NoSegment, Refused
from toy.inputs import check_magnitude, check_segment
from toy.logs import ROUNDING
from toy.statements import cases, family
from toy.statements.cases import over
from toy.statements.claim import Claim
from toy.statements.family import Theta


def tagged_more(T: int, first: int, second: int, X: float) -> int:
    """n_1: numbers between the separators whose tag is at least that of a token at X at T - 1."""
    i = np.arange(first + 1, second)
    return int((2 * (i - 1) <= T - 4 + np.exp(X * X)).sum())


def least_error(T: int, first: int, second: int, X: float) -> float:
    """X min(n_0 / (n (1 + n_0)), n_1 / (n (n + n_1))); 0 where a segment is empty.

    Raises `NoSegment`, `NoMagnitude`, `NotFinite`, and `Refused` unless n >= 2 and e^{X^2} >= 2.
    """
    check_segment(T, second)
    check_magnitude(X)
    if not 1 <= first < second:
        raise NoSegment(f"separators at {first}, {second}: give 1 <= first < second")
    n = T - second
    if n < 2 or np.log(2) > X * X:
        raise Refused(f"n = {n}, X = {X:.6g}: the statement needs n >= 2 and e^(X^2) >= 2")
    before, between = first - 1, tagged_more(T, first, second, X)
    return X * min(before / (n * (1 + before)), between / (n * (n + between)))


def four_inputs(T: int, first: int, X: float) -> Float[np.ndarray, "4 seq"]:
    """X, -X before the first separator; X, -X at T - 1."""
    x = np.zeros((4, T))
    x[0, : first - 1], x[1, : first - 1] = X, -X
    x[2, T - 2], x[3, T - 2] = X, -X
    return x


def _sharp(rng: np.random.Generator, T: int, first: int, second: int, size: int) -> Theta:
    """The two ways to err by no more than that: tag all alike, or shift weight to [SEP].

    Half have every tag s - 1 and a large gain; half have w = 0, so that only [SEP] is told apart,
    with the weight e^{l_SEP} = (n n_0 - n_0 - n_mid) / 2 that balances both errors.
    """
    n, before, middle = T - second, first - 1, second - first - 1
    s = rng.uniform(30, 60, size)
    alike, own = rng.integers(0, 2, size), (n * before - before - middle) / 2
    q = -np.log(max(own, 1e-3)) / (s - 1)
    M = np.zeros((size, 2, 2))
    M[:, 1, 1] = np.where(alike, rng.uniform(10, 60, size) / (s - 1) ** 2, -q)
    return Theta(s, 1.0 * alike, M)


def _wild(rng: np.random.Generator, size: int) -> Theta:
    scale = np.exp(rng.uniform(-3, 3, (size, 1, 1)))
    return Theta(
        rng.uniform(-1, 20, size), rng.normal(size=size), scale * rng.normal(size=(size, 2, 2))
    )


def ratios(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """The least error over the largest error on the four inputs."""
    found = []
    for size in cases.groups(n, 2 * cases.GROUP):
        T = int(rng.integers(6, cases.LONGEST + 1))
        second = int(rng.integers(4, T - 1))
        first = int(rng.integers(2, second - 1))
        X = rng.uniform(np.sqrt(np.log(2)), 2.5)
        near = _sharp(rng, T, first, second, size // 2)
        each = zip(near, _wild(rng, size - size // 2), strict=True)
        theta = Theta(*(np.concatenate(pair) for pair in each))
        x = four_inputs(T, first, X)
        error = np.abs(family.residual(theta, x, (first, second))).max(axis=0)
        least = np.full(size, least_error(T, first, second, X))
        found.append(over(least, error) / (1 + ROUNDING))
    return np.concatenate(found)


CLAIMS = {
    "N3: the last segment": Claim(
        "sup |f - m| >= X min(n_0/(n(1+n_0)), n_1/(n(n+n_1))) with identical separators",
        "N3",
        ratios,
    )
}
