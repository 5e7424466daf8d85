"""The lemma behind every upper bound here: a softmax that favours n positions almost evenly.

Let n numbers have logits in [L, L + Delta], A other numbers and K tokens that read as 0 have logits
of at most 0, and all numbers lie in [-X, X]. With m the mean of the n,

    |f - m| <= 2 X tanh(Delta / 4) [n > 1] + X leak,
    leak = (2A + K) / (A + K + n e^L) where n e^L >= A, and 2A / (A + n e^L) elsewhere.

docs/theory.md, "Release", has the proof.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy.errors import NonPositiveQuery
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


class Crowds(NamedTuple):
    """rho_0 <= r_i <= rho: between what the competition of [SEP] lies, after [SEP]."""

    rho: float
    rho_0: float

    @property
    def spread(self) -> float:
        """1/(1 + rho_0) - 1/(1 + rho), without subtracting numbers near 1."""
        return (self.rho - self.rho_0) / ((1 + self.rho) * (1 + self.rho_0))


def crowds(T: int, t: int, power: float, scale: float) -> Crowds:
    """rho = (T-1) e^{power - scale} and rho_0 = (1 + (t-1) e^{-power}) e^{-scale}.

    Layer 1's score of number against number is within `power` of what it is between zeros, and
    `scale` is how far the score of [SEP] stands above that. Theorem B has X^2 and s - 1.
    """
    with quiet():
        most = (T - 1) * np.exp(power - scale)
        return Crowds(float(most), float((1 + (t - 1) * np.exp(-power)) * np.exp(-scale)))


class Rates(NamedTuple):
    """Delta and L: how uneven the favoured logits are, and how far above the others."""

    unevenness: float
    contrast: float


def rates(crowds: Crowds, X: float, tag: float, b: float, d: float) -> Rates:
    """Delta = q_hi tag spread and L = q_lo tag / (1 + rho), for tags tag / (1 + r_i) and w = 1.

    q_lo = d tag / (1 + rho) - |b| X and q_hi = d tag / (1 + rho_0) + |b| X. Raises
    `NonPositiveQuery` unless q_lo > 0: without it neither bounds anything.
    """
    low = d * tag / (1 + crowds.rho) - abs(b) * X
    if not low > 0:
        raise NonPositiveQuery(
            f"guaranteed query {low:.6g} is not positive: raise s_tag, give d > 0 or a smaller |b|"
        )
    high = d * tag / (1 + crowds.rho_0) + abs(b) * X
    return Rates(high * tag * crowds.spread, low * tag / (1 + crowds.rho))
