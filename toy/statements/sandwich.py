"""How large s_tag has to be for an error of eps = eta X: enough, and in family F needed.

With Lam' = max(1, log(2 (2t-1) / (n eta))) and eta <= 1/10,

    s = 1 + X^2 + log(1.21 (T-1) Lam' / eta),   d = (1 + rho)^2 Lam' / (s-1)^2,   b = 0

errs by at most eps. N2 (iii) needs s >= 1 + log(c Lam / U - k). As eta -> 0 both are
X^2 + log(1/eta) + log log(1/eta) + O(1), and differ by at most
log(1.21 (T-1) n^2 / (n-1)) + X^2 - log c.
"""

import numpy as np
from jaxtyping import Float

from toy import theorem
from toy.errors import Refused
from toy.inputs import check_magnitude, check_segment
from toy.logs import ROUNDING
from toy.statements import cases, sink_necessary
from toy.statements.cases import Setting, over
from toy.statements.claim import Claim


def enough(T: int, t: int, X: float, error: float) -> Setting:
    """Weights of the theorem that err by at most `error` on [-X, X]^T.

    Raises `NoSegment`, `NoMagnitude`, `NotFinite`, and `Refused` unless 0 < error <= X / 10.
    """
    check_segment(T, t)
    check_magnitude(X)
    if not 0 < error <= X / 10:
        raise Refused(f"error = {error:.6g}: give one in (0, X/10] = (0, {X / 10:.6g}]")
    n, eta = T - t, error / X
    contrast = max(1.0, float(np.log(2 * (2 * t - 1) / (n * eta))))
    s = 1 + X * X + np.log(1.21 * (T - 1) * contrast / eta)
    rho = (T - 1) * np.exp(1 + X * X - s)
    return Setting(T, t, X, float(s), 0.0, float((1 + rho) ** 2 * contrast / (s - 1) ** 2))


def suffices(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """|f - m| / eps at those weights, exactly."""
    found = []
    for size in cases.groups(n):
        T, t = cases.shape(rng)
        X = cases.magnitude(rng)
        error = X * float(10 ** rng.uniform(-12, -1))
        at = enough(T, t, X, error)
        x = cases.inputs(rng, T, t, X, size)
        found.append(over(np.abs(theorem.residual(x, t, **at.at)), error) / (1 + ROUNDING))
    return np.concatenate(found)


def in_order(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """The scale that is needed over the scale that is enough."""
    found = np.zeros(n)
    for k in range(n):
        T, t = cases.shape(rng, t_least=2, n_least=3)
        X = cases.magnitude(rng)
        error = X / (10 * (T - t)) * float(10 ** rng.uniform(-12, 0))
        least = sink_necessary.least_scale(T, t, X, error)
        found[k] = max(least, 0.0) / enough(T, t, X, error).s_tag
    return found


CLAIMS = {
    "a scale that is enough": Claim(
        "|f - m| <= eps at s = 1 + X^2 + log(1.21 (T-1) Lam'/eta)", "Sandwich", suffices
    ),
    "needed <= enough": Claim("1 + log(c Lam/U - k) <= that s", "Sandwich", in_order),
}
