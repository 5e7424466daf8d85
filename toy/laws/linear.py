"""The loss to first order in e^{1-s} and e^{-Q}: the frontier's prediction for bounded numbers.

After [SEP] the logits are Q (1 - r_j), r_j = e^{1-s} c_j, c_j = sum_{k<=j, k!=t} e^{x_j x_k}, so

    f - m  =  -Q e^{1-s} K + e^{-Q} Lam,   K = mean_j (c_j - c)(x_j - m),
                                           Lam = (sum_{j<t} (x_j - m) - m) / n,
    E[(f - m)^2]  =  Q^2 e^{2-2s} E[K^2] - 2 Q e^{1-s-Q} E[K Lam] + e^{-2Q} E[Lam^2].

At the best Q its two parts, each with half of the cross term, stand as U : V = Q : 1, whence the
slope of the logarithm is -2 Q / (Q + 1). Where E[K Lam] = 0,
2 Q + log Q = 2 (s - 1) + log(E[Lam^2] / E[K^2]). For any moments Q grows as s and d = Q / (s - 1)^2
falls as 1/s. At d = 1, Q = (s - 1)^2 and the slope is -2 + 4 / (s - 1).
E[K^2] is infinite where E[e^{2 x^2}] is: for Gaussian and for Laplace numbers.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy.laws.one_large import Predicted
from toy.laws.residuals import Crowds
from toy.laws.search import least
from toy.logs import quiet


class Moments(NamedTuple):
    """E[K^2], E[K Lam], E[Lam^2]."""

    uneven: float
    cross: float
    leak: float


def unevenness(seen: Crowds) -> Float[np.ndarray, " case"]:
    """K of every sequence."""
    with quiet():
        crowd = np.where(seen.after, np.exp(seen.log_crowd), 0.0)
    return (crowd * seen.away).sum(axis=1) / seen.n


def moments(seen: Crowds) -> Moments:
    """The three means, weighted."""
    K, Lam = unevenness(seen), (seen.before - seen.mean) / seen.n
    return Moments(*(float((seen.weight * v).mean()) for v in (K * K, K * Lam, Lam * Lam)))


def loss(of: Moments, *, s_tag: float, gain: float) -> float:
    """E[(f - m)^2] to second order in (e^{1-s}, e^{-Q})."""
    uneven, leak = gain * np.exp(1 - s_tag), np.exp(-gain)
    return float(uneven**2 * of.uneven - 2 * uneven * leak * of.cross + leak**2 * of.leak)


def frontier(of: Moments, s_tag: float) -> Predicted:
    """min over Q of `loss`."""
    found = least(
        lambda log_gain: loss(of, s_tag=s_tag, gain=float(np.exp(log_gain))),
        np.log(0.5),
        np.log(4 * s_tag),
        steps=30,
    )
    return Predicted(found.value, float(np.exp(found.at)))
