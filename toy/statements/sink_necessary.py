"""N2: inside family F a small error forces a sink, a large s_tag and a query for the tag.

Four inputs decide, all with x_T = 0: X or -X in every place before [SEP] and 0 after it; and X or
-X at T - 1, 0 elsewhere. Let eps = eta X be the largest |f - m| on them, t >= 2, n = T - t >= 3,
eta <= 1/(3n), and

    U   = log((n-1 + n eta) / ((n-1)(1 - n eta))),
    Lam = log((t-1)(n-2)(1 - n eta) / (eta (n-1)(n-1 + n eta))),
    c   = e^{X^2} - 2 + n/2 - 1/(n-1),   k = T - 1 - n/2 + 1/(n-1).

At x_T = 0, with the gain G = q w (s - 1) and beta = tau_T M_21:
(i)   G a* >= Lam + |beta| X,  a* = 1 / (1 + e^{1-s} (T - 3 + e^{X^2})) the sink of a token at X
(ii)  1 - A1[T, t] <= (T-1) U / (c Lam)
(iii) s >= 1 + log(c Lam / U - k)
(iv)  |beta| X <= U
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy.errors import Refused
from toy.inputs import check_magnitude, check_segment
from toy.logs import ROUNDING, quiet
from toy.statements import cases, family
from toy.statements.cases import over
from toy.statements.claim import Claim
from toy.statements.family import Theta


class Forced(NamedTuple):
    """What an error of at most eps on the four inputs forces."""

    drift: Float[np.ndarray, " case"]  # U: how much the logits after [SEP] may differ
    contrast: Float[np.ndarray, " case"]  # Lam: how far they must stand above the rest
    sink_defect: Float[np.ndarray, " case"]  # (ii): 1 - A1[T, t] is at most this
    e_scale: Float[np.ndarray, " case"]  # (iii): e^{s-1} is at least this


def relative_error(
    T: int, t: int, X: float, error: Float[np.ndarray, " case"], parts: int
) -> tuple[int, Float[np.ndarray, " case"]]:
    """n = T - t and eta = eps / X, where t >= 2, n >= 3 and 0 < eps <= X / (parts n).

    Raises `NoSegment`, `NoMagnitude`, `NotFinite`, and `Refused` elsewhere.
    """
    check_segment(T, t)
    check_magnitude(X)
    n = T - t
    if t < 2 or n < 3:
        raise Refused(f"t = {t}, n = {n}: the statement needs t >= 2 and n = T - t >= 3")
    eta = np.asarray(error) / X
    if not ((eta > 0) & (parts * n * eta <= 1 + 1e-12)).all():
        raise Refused(
            f"an error outside (0, X/({parts}n)] = (0, {X / (parts * n):.6g}]: nothing is forced"
        )
    return n, eta


def forced(T: int, t: int, X: float, error: Float[np.ndarray, " case"]) -> Forced:
    """U, Lam and the consequences (ii) and (iii).

    Raises `NoSegment`, `NoMagnitude`, `NotFinite`, and `Refused` unless t >= 2, n >= 3 and
    0 < eps <= X / (3n).
    """
    n, eta = relative_error(T, t, X, error, 3)
    drift = np.log1p(n * eta / (n - 1)) - np.log1p(-n * eta)
    kept = (1 - n * eta) / (n - 1 + n * eta)
    contrast = np.log((t - 1) * (n - 2) / (n - 1) * kept) - np.log(eta)
    c = np.expm1(X * X) - 1 + n / 2 - 1 / (n - 1)
    e_scale = c * contrast / drift - (T - 1 - n / 2 + 1 / (n - 1))
    return Forced(drift, contrast, (T - 1) * drift / (c * contrast), e_scale)


def least_scale(T: int, t: int, X: float, error: float) -> float:
    """1 + log(c Lam / U - k): s_tag is at least this in every member of F that errs by eps at most.

    -inf where that is the logarithm of nothing. Raises as `forced`.
    """
    with quiet():
        least = np.maximum(forced(T, t, X, np.array([error])).e_scale, 0.0)
        return float(1 + np.log(least)[0])


def four_inputs(T: int, t: int, X: float) -> Float[np.ndarray, "4 seq"]:
    """X, -X before [SEP]; X, -X at T - 1."""
    x = np.zeros((4, T))
    x[0, : t - 1], x[1, : t - 1] = X, -X
    x[2, T - 2], x[3, T - 2] = X, -X
    return x


def thetas(rng: np.random.Generator, T: int, t: int, X: float, size: int) -> Theta:
    """Members of F that average to some degree: any gauge w, either sign of d, some leakage.

    Half have the gain at which leak and unevenness are about equal for their scale, which brings
    them closest to what is forced; the closer the smaller the error, so a third err by 1e-20.
    """
    far = np.where(rng.random(size) < 1 / 3, rng.uniform(50, 600, size), rng.uniform(-1, 28, size))
    s = 1 + X * X + np.log(T) + far
    gauge = [np.ones(size), np.exp(rng.normal(size=size)), rng.uniform(0.2, 3, size) / (s - 1)]
    w = np.choose(rng.integers(3, size=size), gauge)
    balanced = np.maximum(s - X * X - np.log(T) + rng.uniform(-3, 6, size), 0.5)
    gain = np.where(rng.integers(0, 2, size), balanced, np.exp(rng.uniform(0, 4.5, size)))
    sink = 1 / (1 + (T - 1) * np.exp(1 - s))
    tag = w - 1 + w * (s - 1) * sink
    beta = rng.normal(size=size) * 10 ** rng.uniform(-9, 0, size) * rng.integers(0, 2, size)
    beta = np.where(rng.random(size) < 0.3, 10 * beta * np.exp(-balanced), beta) / X
    M = np.zeros((size, 2, 2))
    M[:, 0] = rng.normal(size=(size, 2))  # irrelevant at x_T = 0
    M[:, 1, 0], M[:, 1, 1] = beta / tag, gain / (tag * w * (s - 1))
    return Theta(s, w, M)


class Tried(NamedTuple):
    """Members of F whose error on the four inputs is small enough to force something."""

    theta: Theta
    gain: Float[np.ndarray, " case"]
    tilt: Float[np.ndarray, " case"]  # |beta| X
    forced: Forced
    shape: tuple[int, int, float]


def tried(theta: Theta, T: int, t: int, X: float) -> Tried:
    """Those of the thetas that are active, with what their own error forces.

    The error is raised by its relative rounding, which only weakens what is forced.
    """
    x = four_inputs(T, t, X)
    error = np.abs(family.residual(theta, x, (t,))).max(axis=0) * (1 + ROUNDING)
    active = (3 * (T - t) * error <= X) & (error > 1e-290)
    chosen = Theta(*(v[active] for v in theta))
    seen = family.read(chosen, x[0], (t,))
    return Tried(
        chosen, seen.gain, np.abs(seen.beta) * X, forced(T, t, X, error[active]), (T, t, X)
    )


def _ratios(
    rng: np.random.Generator, n: int, ratio: Callable[[Tried], Float[np.ndarray, " case"]]
) -> Float[np.ndarray, " case"]:
    found, count = [], 0
    while count < n:
        T, t = cases.shape(rng, t_least=2, n_least=3)
        X = cases.magnitude(rng)
        seen = tried(thetas(rng, T, t, X, 4 * cases.GROUP), T, t, X)
        found.append(ratio(seen) / (1 + ROUNDING))
        count += len(found[-1])
    return np.concatenate(found)


def _query(seen: Tried) -> Float[np.ndarray, " case"]:
    T, _, X = seen.shape
    hot = 1 / (1 + np.exp(1 - seen.theta.s_tag) * (T - 3 + np.exp(X * X)))
    return over(seen.forced.contrast + seen.tilt, np.maximum(seen.gain * hot, 0.0))


def _sink(seen: Tried) -> Float[np.ndarray, " case"]:
    missed = (seen.shape[0] - 1) * np.exp(1 - seen.theta.s_tag)
    return over(missed / (1 + missed), seen.forced.sink_defect)


def query_forced(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """(i): (Lam + |beta| X) / (G a*)."""
    return _ratios(rng, n, _query)


def sink_forced(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """(ii): (1 - A1[T, t]) c Lam / ((T-1) U)."""
    return _ratios(rng, n, _sink)


def scale_forced(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """(iii): (c Lam / U - k) / e^{s-1}."""
    return _ratios(rng, n, lambda v: over(v.forced.e_scale, np.exp(v.theta.s_tag - 1)))


def no_tilt(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """(iv): |beta| X / U."""
    return _ratios(rng, n, lambda v: over(v.tilt, v.forced.drift))


CLAIMS = {
    "N2 (i): the query": Claim("G a* >= Lam + |beta| X", "N2", query_forced),
    "N2 (ii): the sink": Claim("1 - A1[T, t] <= (T-1) U / (c Lam)", "N2", sink_forced),
    "N2 (iii): the outlier": Claim("s >= 1 + log(c Lam / U - k)", "N2", scale_forced),
    "N2 (iv): no numbers in keys": Claim("|M_21 tau_T| X <= U", "N2", no_tilt),
}
