"""The gap that a comparison of n items could have shown."""

import math

import numpy as np
from jaxtyping import Float

Z_TEST, Z_POWER = 1.959964, 0.841621
"""Normal quantiles of 97.5% (a two-sided test at 5%) and of 80%."""


def detectable(differences: Float[np.ndarray, " items"]) -> float:
    """(z_.975 + z_.80) s / √n: a true mean difference that n such items show 80% of the time.

    s is the items' own standard deviation about their mean. Of answers to the same items s² is
    about the share of items on which the two differ, so the gap is that of the paired test.
    Infinite for one item. Items that never differ have s = 0 and say nothing of others: then
    s² = 3/n, the share of differing items that n items without one exclude at 95%.
    """
    n = len(differences)
    if n < 2:
        return math.inf
    variance = float(np.var(differences, ddof=1))
    return (Z_TEST + Z_POWER) * math.sqrt(max(variance, 3 / n) / n)
