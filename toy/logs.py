"""Arithmetic on logarithms: where exp(-s) underflows, s itself is still an ordinary number."""

import numpy as np
from jaxtyping import Float

ROUNDING = 64 * 745 * 1000 * float(np.finfo(np.float64).eps)
"""Relative error allowed to what is carried as logarithms, about 1e-8.

A float64 exponential that does not underflow has an exponent below 745 in size. That exponent is
itself an exponential of a sum of some ten logarithms, each rounded at its own size, of which the
largest is s + X^2 < 1000: 64 is room for the number of operations.
"""


def quiet() -> np.errstate:
    """Inside, log 0 = -inf, exp of much = inf and exp of little = 0 are meant."""
    return np.errstate(divide="ignore", over="ignore", under="ignore")


def log_sigmoid(v: Float[np.ndarray, "*any"] | float) -> Float[np.ndarray, "*any"]:
    """log(1 / (1 + e^-v)), for any v."""
    return np.asarray(-np.logaddexp(0.0, -np.asarray(v, dtype=np.float64)))
