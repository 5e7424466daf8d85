"""ρ = corr(rank x, rank y): does one thing grow with the other? (Spearman, 1904)."""

import numpy as np
from jaxtyping import Float


def ranks(values: Float[np.ndarray, " units"]) -> Float[np.ndarray, " units"]:
    """Places in ascending order, from 0; equal values share the mean of theirs."""
    _, group, size = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(size) - (size + 1) / 2)[group]


def spearman(x: Float[np.ndarray, " units"], y: Float[np.ndarray, " units"]) -> float:
    """The correlation of the ranks, in [−1, 1]; NaN below three units or without variance.

    Examples:
        >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 100.0, 50.0]))
        0.5
    """
    if len(x) < 3:
        return float("nan")
    a, b = (r - r.mean() for r in (ranks(x), ranks(y)))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else float("nan")
