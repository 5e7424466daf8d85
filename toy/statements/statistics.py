"""Other statistics by the same mechanism: moments, the variance, a tilted mean, the maximum.

Moments: a coordinate zeta phi(x_i) beside the number and a second value that reads it / zeta. With
0 <= phi <= Phi, f_phi is within Phi (tanh(Delta/4) + P) of the mean of phi, P = t / (t + n e^L),
Delta and L of Theorem B with X^2 + zeta^2 Phi^2 in the exponents; phi = x^2 gives the variance
f_phi - f^2 within that plus 2 X |f - m|.

Tilt: M = [[0, 0], [beta/(s-1), d]] gives every x_j after [SEP] the weight e^{beta x_j}. With x' the
tilted mean, rho of Theorem B, Delta' = Delta + 2 beta X rho/(1+rho) and L' = L - 2 beta X,

    |f - x'| <= 2 X tanh(Delta'/4) + X leak(t-1, 1, L'),   0 <= max - x' <= W((n-1)/e) / beta,

W Lambert's function; W((n-1)/e) <= log n. b without a transpose in the paper's eq. (2) is such a
tilt with beta = b (s-1): that model reads the maximum, not the mean.
"""

import numpy as np
from jaxtyping import Float

from toy.errors import Refused
from toy.statements import cases, literal, release, widths
from toy.statements.cases import Setting, over
from toy.statements.claim import Claim


def moment_bound(at: Setting, zeta: float) -> float:
    """X^2 (tanh(Delta/4) + P): how far the second moment read out may be from that after [SEP].

    Raises `NonPositiveQuery` unless q_lo > 0.
    """
    power = at.X**2 + zeta**2 * at.X**4
    crowds = release.crowds(at.T, at.t, power, at.s_tag - 1)
    uneven, contrast = release.rates(crowds, at.X, at.s_tag - 1, at.b, at.d)
    n = at.T - at.t
    leak = at.t * np.exp(-contrast) / (at.t * np.exp(-contrast) + n)
    return float(at.X**2 * (leak + (np.tanh(uneven / 4) if n > 1 else 0.0)))


def variance_bound(at: Setting, zeta: float) -> float:
    """`moment_bound` + 2 X (the bound on |f - m|). Raises as it."""
    power = at.X**2 + zeta**2 * at.X**4
    return moment_bound(at, zeta) + 2 * at.X * widths.error_bound(at, power)


def moment_model(at: Setting, zeta: float) -> literal.Model:
    """Coordinates x, tag, zeta x^2; two values, x and x^2."""
    V1, QK2 = np.zeros((3, 3)), np.zeros((3, 3))
    V1[1, 1], QK2[0, 1], QK2[1, 1] = -1.0, at.b, at.d
    return literal.Model(np.eye(3), V1, QK2, np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1 / zeta]]))


def variance(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """|f_phi - f^2 - variance after [SEP]| over its bound."""
    found = []
    for size in cases.groups(n):
        X, zeta = float(rng.uniform(0.3, 2)), float(rng.uniform(0.05, 0.5))
        at = widths.guarded(rng, X, X * X + zeta**2 * X**4)
        x = cases.inputs(rng, at.T, at.t, X, size)
        e = np.stack([x, -np.ones_like(x), zeta * x * x], axis=-1)
        e[:, at.t - 1] = [0.0, -at.s_tag, 0.0]
        seen = literal.run(moment_model(at, zeta), e)
        f, second = seen.output[:, -1].T
        error = np.abs(second - f * f - x[:, at.t :].var(axis=1))
        room = (1 + 2 * X) * (seen.rounding_output + 8 * at.T * literal.UNIT * (X + X * X))
        found.append(over(error, variance_bound(at, zeta), room))
    return np.concatenate(found)


def tilted(x: Float[np.ndarray, "*case n"], beta: float) -> Float[np.ndarray, "*case"]:
    """sum_j x_j e^{beta x_j} / sum_j e^{beta x_j}."""
    weights = np.exp(beta * (x - x.max(axis=-1, keepdims=True)))
    return np.asarray((x * weights).sum(axis=-1) / weights.sum(axis=-1))


def below_maximum(n: int, beta: float) -> float:
    """W((n-1)/e) / beta: the tilted mean of n numbers is never farther below their maximum.

    Raises `Refused` unless n >= 1 and beta > 0.
    """
    if n < 1 or not beta > 0:
        raise Refused(f"n = {n}, beta = {beta:.6g}: give at least one number and beta > 0")
    w, goal = np.log(n), (n - 1) / np.e
    for _ in range(60):  # Newton on w e^w, convex and rising, from above
        w = w - (w * np.exp(w) - goal) / ((1 + w) * np.exp(w))
    return float(w / beta)


def tilt_bound(at: Setting, beta: float) -> float:
    """|f - tilted mean| <= 2 X tanh(Delta'/4) + X leak(t-1, 1, L'), for b = 0.

    Raises `NonPositiveQuery` unless d > 0, and `Refused` for beta < 0.
    """
    if not beta >= 0:
        raise Refused(f"beta = {beta:.6g}: the bound is for beta >= 0; turn the signs of x")
    crowds = release.crowds(at.T, at.t, at.X**2, at.s_tag - 1)
    uneven, contrast = release.rates(crowds, at.X, at.s_tag - 1, 0.0, at.d)
    uneven = uneven + 2 * beta * at.X * crowds.rho / (1 + crowds.rho)
    contrast = contrast - 2 * beta * at.X
    return float(release.error_bound(at.X, at.T - at.t, at.t - 1, 1, uneven, contrast))


def tilted_mean(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """|f - tilted mean| over its bound."""
    found = []
    for size in cases.groups(n):
        at = cases.setting(rng)._replace(b=0.0)
        beta = float(np.exp(rng.uniform(-2, 2.5)))
        x = cases.inputs(rng, at.T, at.t, at.X, size)
        QK2 = np.array([[0.0, 0.0], [beta / (at.s_tag - 1), at.d]])
        model = literal.theorem_model(at.s_tag)._replace(QK2=QK2)
        seen = literal.run(model, literal.embed(x, at.t, at.s_tag))
        error = np.abs(seen.output[:, -1, 0] - tilted(x[:, at.t :], beta))
        room = seen.rounding_output + 4 * (at.T + beta * at.X) * literal.UNIT * at.X
        found.append(over(error, tilt_bound(at, beta), room))
    return np.concatenate(found)


def maximum(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """(max - tilted mean) over W((n-1)/e)/beta; half with all others equally far below."""
    found = []
    for size in cases.groups(n):
        count, beta = int(rng.integers(2, cases.LONGEST)), float(np.exp(rng.uniform(-2, 3)))
        most = below_maximum(count, beta)
        away = rng.exponential(size=(size, count)) * most * 3
        alike = np.broadcast_to((1 / beta + most) * rng.uniform(0.8, 1.2, (size, 1)), away.shape)
        x = -np.where(rng.integers(0, 2, (size, 1)), away, alike)
        x[np.arange(size), rng.integers(count, size=size)] = 0.0
        short = -tilted(x, beta)
        found.append(over(np.maximum(short, -short * 1e18), most, 64 * literal.UNIT * most * count))
    return np.concatenate(found)


CLAIMS = {
    "variance": Claim(
        "|f_phi - f^2 - var| <= X^2 (tanh(Delta/4) + P) + 2X |f - m|, phi = x^2",
        "Other statistics",
        variance,
    ),
    "tilted mean": Claim(
        "|f - tilted mean| <= 2X tanh(Delta'/4) + X leak(t-1, 1, L - 2 beta X)",
        "Other statistics",
        tilted_mean,
    ),
    "maximum": Claim(
        "0 <= max - tilted mean <= W((n-1)/e)/beta <= log(n)/beta", "Other statistics", maximum
    ),
}
