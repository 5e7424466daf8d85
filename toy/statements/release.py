"""The lemma behind every upper bound here: a softmax that favours n positions almost evenly.

Let n numbers have logits in [L, L + Delta], A other numbers and K tokens that read as 0 have logits
of at most 0, and all numbers lie in [-X, X]. With m the mean of the n,

    |f - m| <= 2 X tanh(Delta / 4) [n > 1] + X leak,
    leak = (2A + K) / (A + K + n e^L) where n e^L >= A, and 2A / (A + n e^L) elsewhere.

docs/theory.md, "Release", has the proof.
"""

import numpy as np
from jaxtyping import Float

from toy.logs import quiet


def leak(
    n: int, numbers: int, zeros: int, contrast: Float[np.ndarray, "*case"] | float
) -> Float[np.ndarray, "*case"]:
    """max of (2A + u) / (A + u + n e^L) over 0 <= u <= K: what other tokens add, in units of X.

    `numbers` is A, `zeros` K, `contrast` L; 0 where L is infinite.
    """
    with quiet():
        after = n * np.exp(np.asarray(contrast, dtype=np.float64))
    every = (2 * numbers + zeros) / (numbers + zeros + after)
    some = 2 * numbers / np.maximum(numbers + after, 1e-300)
    return np.where(after >= numbers, every, some)


def error_bound(
    X: Float[np.ndarray, "*#case"] | float,
    n: int,
    numbers: int,
    zeros: int,
    unevenness: Float[np.ndarray, "*#case"] | float,
    contrast: Float[np.ndarray, "*#case"] | float,
) -> Float[np.ndarray, "..."]:
    """2 X tanh(Delta / 4) + X leak, the first term only for n > 1."""
    uneven = 2 * np.tanh(np.asarray(unevenness) / 4) if n > 1 else 0.0
    return np.asarray(X * (uneven + leak(n, numbers, zeros, contrast)))


def spread(
    most: Float[np.ndarray, "*case"] | float, least: Float[np.ndarray, "*case"] | float
) -> Float[np.ndarray, "*case"]:
    """1/(1 + rho_0) - 1/(1 + rho), without subtracting numbers near 1; `most` is rho."""
    return np.asarray((most - least) / ((1 + most) * (1 + least)))
