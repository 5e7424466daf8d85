"""Where the theorem ends: numbers without a bound, and a mask that is not causal.

Not uniform in x: at a fixed s, with b = 0 and the one number x_T = lambda, the sink of the last
token is at most e^{s-1-lambda^2}, its logits at most kappa = d (s-1)^2 e^{s-1-lambda^2} in size,

    |f - m| >= lambda (1/n - e^{2 kappa} / T)  ->  infinity with lambda.

No mask: numbers before [SEP] are tagged too and f tends to the mean of all T-1 numbers, within
2 X tanh(Delta/4) + X leak(0, 1, L), rho_0 = (1 + (T-2) e^{-X^2}) e^{1-s}, n = T - 1.
"""

import numpy as np
from jaxtyping import Float

from toy.logs import ROUNDING, quiet
from toy.statements import cases, family, literal, release
from toy.statements.cases import Setting, over
from toy.statements.claim import Claim
from toy.statements.family import Theta


def least_error(at: Setting) -> float:
    """X (1/n - e^{2 kappa} / T), the error at x_T = X with every other number 0, for b = 0."""
    with quiet():
        kappa = at.d * (at.s_tag - 1) ** 2 * np.exp(at.s_tag - 1 - at.X**2)
        return float(at.X * (1 / (at.T - at.t) - np.exp(2 * kappa) / at.T))


def not_uniform(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """The least error over the error at that input, exactly."""
    found = []
    for size in cases.groups(n):
        T, t = cases.shape(rng)
        X = float(rng.uniform(1, 9))
        s = 1 + X * X * rng.uniform(0.01, 1.2, size)
        M = np.zeros((size, 2, 2))
        M[:, 1, 1] = np.exp(rng.normal(size=size))
        x = np.zeros(T)
        x[-1] = X
        error = np.abs(family.residual(Theta(s, np.ones(size), M), x, (t,)))
        each = zip(s, M[:, 1, 1], strict=True)
        least = [least_error(Setting(T, t, X, float(a), 0.0, float(d))) for a, d in each]
        found.append(over(np.maximum(least, 0.0), error) / (1 + ROUNDING))
    return np.concatenate(found)


def unmasked_bound(at: Setting) -> float:
    """|f - mean of all numbers| <= this without the causal mask.

    Raises `NonPositiveQuery` unless q_lo > 0.
    """
    T, X2, gain = at.T, at.X**2, at.s_tag - 1
    crowds = release.Crowds(
        (T - 1) * np.exp(X2 - gain), (1 + (T - 2) * np.exp(-X2)) * np.exp(-gain)
    )
    rates = release.rates(crowds, at.X, gain, at.b, at.d)
    return float(release.error_bound(at.X, T - 1, 0, 1, *rates))


def unmasked(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """|f - mean of all numbers| over its bound."""
    found = []
    for size in cases.groups(n):
        at = cases.setting(rng)
        x = cases.inputs(rng, at.T, at.t, at.X, size)
        model = literal.theorem_model(*at[3:])
        seen = literal.run(model, literal.embed(x, at.t, at.s_tag), causal=False)
        error = np.abs(seen.output[:, -1, 0] - x.sum(axis=1) / (at.T - 1))
        room = seen.rounding_output + 4 * at.T * literal.UNIT * at.X
        found.append(over(error, unmasked_bound(at), room))
    return np.concatenate(found)


CLAIMS = {
    "not uniform in x": Claim(
        "|f - m| >= lambda (1/n - e^{2 kappa}/T) at x_T = lambda, others 0, any s",
        "Not uniform in x",
        not_uniform,
    ),
    "no mask": Claim(
        "|f - mean of all| <= 2X tanh(Delta/4) + X leak(0, 1, L) without a causal mask",
        "The mask",
        unmasked,
    ),
}
