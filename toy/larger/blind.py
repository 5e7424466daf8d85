"""What no model can do that is blind to the order of the past: one layer without positions.

One attention layer without positions sees the last token and the multiset of those before it,
whatever its width, heads, norms and MLP (N0 in docs/theory.md, which bounds the worst case). On
average over independent numbers of variance 1 its best answer is the conditional mean
E[m | x_T, {x_j}]: a x_T + (1 - a) v, a = E[1/n], v the mean of the N = T - 2 other numbers.
"""

import numpy as np
from jaxtyping import Float


def blind_error(T: int) -> float:
    """Var(1/n) (1 + 1/N) + E[((n-1)/n)^2 (1/(n-1) - 1/N)]: the least mean squared error.

    n uniform on 1..T-1. m = x_T/n + (n-1)/n y with y the mean of n - 1 of the N others, drawn
    without replacement; the first term is the unknown weight of x_T, the second the unknown draw.
    """
    if T <= 2:
        return 0.0  # T = 2: the last number is the mean
    n, others = np.arange(1, T), T - 2
    draw = (n - 1) / n**2 - ((n - 1) / n) ** 2 / others
    return float(np.var(1 / n) * (1 + 1 / others) + draw.mean())


def target_variance(T: int) -> float:
    """E[1/n], n uniform on 1..T-1: the variance of the mean of n numbers of variance 1."""
    return float(np.mean(1 / np.arange(1, T)))


def blind_fvu(shortest: int, longest: int) -> float:
    """The least fraction of variance unexplained over lengths uniform on shortest..longest."""
    lengths = range(shortest, longest + 1)
    errors: Float[np.ndarray, " length"] = np.array([blind_error(T) for T in lengths])
    return float(errors.mean() / np.mean([target_variance(T) for T in lengths]))
