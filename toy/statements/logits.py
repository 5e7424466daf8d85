"""N1: a softmax that reads plain numbers out must separate its logits, wherever they come from.

f = sum_j p_j x_j with x_t := 0 and p = softmax(l). With R = max_{j>t} l_j - min_{j<=t} l_j and the
one input X before [SEP], -X after it,

    |f - m| >= X min(1, (2t-1) / (t + n e^R)),

hence |f - m| <= eps < X needs R >= log(((2t-1) X/eps - t) / n): logits that are bounded by any
constant leave an error. If l_j = h_T^T M h_j then R <= 2 ||M|| max |h|^2.
"""

import numpy as np
from jaxtyping import Float

from toy.errors import Refused
from toy.inputs import check_magnitude, check_numbers, check_segment
from toy.logs import quiet
from toy.statements import cases, family
from toy.statements.cases import over
from toy.statements.claim import Claim
from toy.statements.family import Theta


def least_contrast(T: int, t: int, X: float, error: float) -> float:
    """log(((2t-1) X/eps - t) / n), which is at most R; -inf where the error may be as large.

    Raises `NoSegment`, `NoMagnitude`, `NotFinite`, `Refused` for an error not positive.
    """
    check_segment(T, t)
    check_magnitude(X)
    check_numbers(error=error)
    if error <= 0:
        raise Refused(f"error = {error:.6g}: a softmax always errs: give a positive error")
    with quiet():
        return float(np.log(np.maximum((2 * t - 1) * X / error - t, 0.0) / (T - t)))


def least_size(T: int, t: int, X: float, error: float, norm: float) -> float:
    """sqrt(least_contrast / (2 ||M||)): how large some |h| is, if ||M|| <= norm.

    Raises as `least_contrast`, and `Refused` for a norm not positive.
    """
    check_numbers(norm=norm)
    if norm <= 0:
        raise Refused(f"norm = {norm:.6g}: a matrix without entries has no logits: give norm > 0")
    return float(np.sqrt(max(least_contrast(T, t, X, error), 0.0) / (2 * norm)))


def opposed(T: int, t: int, X: float) -> Float[np.ndarray, " seq"]:
    """X before [SEP], 0 at it, -X after it."""
    i = np.arange(1, T + 1)
    return np.where(i < t, X, np.where(i > t, -X, 0.0))


def _random_logits(
    rng: np.random.Generator, T: int, t: int, size: int
) -> Float[np.ndarray, "case seq"]:
    """Even ones, even on either side of [SEP], and uneven ones, over many scales."""
    after = np.arange(1, T + 1) > t
    scale = np.exp(rng.uniform(-3, 3.5, (size, 1)))
    even = np.where(after, scale, 0.0) + rng.normal(size=(size, 1))
    uneven = even + rng.normal(size=(size, T)) * rng.integers(0, 2, (size, 1))
    return np.where(rng.integers(0, 2, (size, 1)), even, uneven)


def _family_logits(
    rng: np.random.Generator, T: int, t: int, X: float, size: int
) -> Float[np.ndarray, "case seq"]:
    """What members of family F make of the input, in closed form."""
    theta = Theta(rng.uniform(0, 12, size), rng.normal(size=size), rng.normal(size=(size, 2, 2)))
    return family.read(theta, opposed(T, t, X), (t,)).logits


def ratios(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """The least error over the error, for arbitrary logits and for those of family F."""
    found = []
    for size in cases.groups(n, 2 * cases.GROUP):
        T, t = cases.shape(rng)
        X, half = cases.magnitude(rng), size // 2
        logits = np.concatenate(
            [_random_logits(rng, T, t, half), _family_logits(rng, T, t, X, size - half)]
        )
        with quiet():
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            p = p / p.sum(axis=1, keepdims=True)
            error = X * (2 * p[:, : t - 1].sum(axis=1) + p[:, t - 1])
            R = logits[:, t:].max(axis=1) - logits[:, :t].min(axis=1)
            least = X * np.minimum(1.0, (2 * t - 1) / (t + (T - t) * np.exp(R)))
        # e^R and p carry the rounding of exponents as large as the logits.
        room = 8 * np.finfo(np.float64).eps * (T + np.abs(logits).max(axis=1))
        found.append(over(least, error) / (1 + room))
    return np.concatenate(found)


CLAIMS = {
    "N1: logits": Claim(
        "|f - m| >= X min(1, (2t-1)/(t + n e^R)) at one input, if f = sum_j softmax(l)_j x_j",
        "N1",
        ratios,
    )
}
