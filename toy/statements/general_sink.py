"""N2': whatever s_num is, a small error forces [SEP] to stand out, and a sink.

The family here: any real s_num, s = s_tag and w, W_V1 = diag(0, -w), W_V2 = [V, 0]^T with V >= 1,
any 2x2 matrix M. Family F is its part with s_num = 0 and V = 1. Let 0 < z <= X, t >= 2 and
n = T - t >= 3, and sigma = sign(s_num), either sign where s_num = 0. Three inputs decide: sigma z
in every place before [SEP] and 0 after it; the same with sigma z at t + 1; the same with sigma z at
T - 1. With eps = eta z the largest |f - m| on them, eta <= 1 / (6n), zeta = eta (n-1) / (n-2), let

    U   = log((1/n + eta - zeta) (1 - 1/n + eta) / ((1/n - eta - zeta) (1 - 1/n - eta))),
    Lam = log(((1/n - eta) (n-2) / (n-1) - eta) (t-1) / eta).

With G the gain of layer 2's logits in A1[., t], and a that sink at T - 1 in the third input:
(i)   G a >= Lam
(ii)  1 - a <= (n - 2 + t e^{z^2}) U / ((n-2) Lam)
(iii) s_tag + |s_num| z >= 1 + log((n-2) Lam / U - t e^{z^2})
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy.logs import quiet
from toy.statements import cases
from toy.statements.cases import over
from toy.statements.general_family import General, read
from toy.statements.sink_necessary import relative_error

LEAST = 1e-9
"""Errors below this, relative to z, are not tried: float64 must be able to tell them from 0."""


class Forced(NamedTuple):
    """What an error of at most eps on the three inputs forces, for each case."""

    drift: Float[np.ndarray, " case"]  # U
    contrast: Float[np.ndarray, " case"]  # Lam
    sink_defect: Float[np.ndarray, " case"]  # (ii)
    e_scale: Float[np.ndarray, " case"]  # (iii): e^{s_tag - 1 + |s_num| z} is at least this


def forced(T: int, t: int, z: float, error: Float[np.ndarray, " case"]) -> Forced:
    """U, Lam and what follows.

    Raises `NoSegment`, `NoMagnitude`, `NotFinite`, and `Refused` unless t >= 2, n >= 3 and
    0 < eps <= z / (6n).
    """
    n, eta = relative_error(T, t, z, error, 6)
    zeta = eta * (n - 1) / (n - 2)
    drift = np.log1p(2 * eta / (1 / n - eta - zeta)) + np.log1p(2 * eta / (1 - 1 / n - eta))
    contrast = np.log(((1 / n - eta) * (n - 2) / (n - 1) - eta) * (t - 1) / eta)
    hot = t * np.exp(z * z)
    slope = (n - 2) * contrast / drift
    return Forced(drift, contrast, (n - 2 + hot) / slope, slope - hot)


def least_scale(T: int, t: int, X: float, error: float, s_num: float) -> float:
    """max over z of 1 + log((n-2) Lam / U - t e^{z^2}) - |s_num| z: s_tag is at least this.

    For members of the family that err by `error` at most on [-X, X]^T; z runs over 200 magnitudes
    between 6 n eps and X, each of which is a proof. -inf where none forces anything. Raises as
    `forced`.
    """
    forced(T, t, X, np.array([error]))
    z = np.geomspace(6 * (T - t) * error, X, 200)
    with quiet():
        least = [np.log(np.maximum(forced(T, t, v, np.array([error])).e_scale, 0))[0] for v in z]
    return float(1 + np.max(np.array(least) - abs(s_num) * z))


def three_inputs(T: int, t: int, z: float) -> Float[np.ndarray, "3 seq"]:
    """z before [SEP]; also at t + 1; also at T - 1."""
    x = np.zeros((3, T))
    x[:, : t - 1] = z
    x[1, t] = x[2, T - 2] = z
    return x


class Levers(NamedTuple):
    """What an attack moves: the family in the reals that matter at x_T = 0, for s_num >= 0."""

    log_scale: Float[np.ndarray, " case"]  # s_tag - 1 + s_num z
    lift: Float[np.ndarray, " case"]  # s_num z
    log_gain: Float[np.ndarray, " case"]  # log G
    tilt: Float[np.ndarray, " case"]  # beta z
    w: Float[np.ndarray, " case"]
    V: Float[np.ndarray, " case"]


def weights_of(levers: Levers, T: int, z: float) -> General:
    """W_V1 = diag(0, -w), W_V2 = [V, 0]; the rows of M that give G and beta at x_T = 0."""
    log_scale, lift, log_gain, tilt, w, V = levers
    s = 1 + log_scale - lift
    tag = w - 1 + w * (s - 1) / (1 + (T - 1) * np.exp(1 - s))
    size = len(s)
    W_V1, M = np.zeros((2, size, 2, 2))
    W_V1[:, 1, 1] = -w
    M[:, 1, 0] = tilt / z / tag
    M[:, 1, 1] = np.exp(log_gain) / (w * (s - 1)) / tag
    return General(lift / z, s, W_V1, M, np.stack([V, np.zeros(size)], axis=-1))


class Tried(NamedTuple):
    """Members of the family, the error of each on the three inputs, and what it has."""

    levers: Levers
    error: Float[np.ndarray, " case"]
    sink: Float[np.ndarray, " case"]  # at T - 1 in the third input


def attempt(levers: Levers, T: int, t: int, z: float) -> Tried:
    """The error, raised by its rounding: that of the largest logit, times z; NaN counts as 1."""
    x = three_inputs(T, t, z)
    theta = weights_of(levers, T, z)
    with np.errstate(over="ignore", invalid="ignore"):
        seen = read(theta, x, t)
        query = np.abs(np.einsum("bci,cij->bcj", seen.stream[..., -1, :], theta.M))
        logit = (query[:, :, None] * np.abs(seen.stream)).sum(axis=-1).max(axis=(0, 2))
        off = np.abs(seen.output - x[:, t:].mean(axis=1)[:, None]).max(axis=0)
        error = off + 32 * np.finfo(np.float64).eps * z * (logit + T)
    return Tried(levers, np.where(np.isfinite(error), error, 1.0), seen.sink[2, :, T - 2])


def _draw(rng: np.random.Generator, T: int, z: float, size: int) -> Levers:
    log_scale = z * z + np.log(T) + rng.uniform(-2, 22, size)
    lift = np.exp(rng.uniform(-4, 3, size)) * rng.integers(0, 2, size)
    balanced = np.maximum(log_scale - z * z - np.log(T) + rng.uniform(-3, 3, size), 0.5)
    w = np.exp(rng.normal(size=size)) * np.where(rng.random(size) < 0.8, 1, -1)
    V = np.where(rng.integers(0, 2, size), 1.0, 1 + np.exp(rng.normal(size=size)))
    tilt = 0.1 * rng.normal(size=size) * rng.integers(0, 2, size)
    return Levers(log_scale, lift, np.log(balanced), tilt, w, V)


def descend(
    rng: np.random.Generator, levers: Levers, T: int, t: int, z: float, steps: int = 60
) -> Tried:
    """Random descent of the error in gain, tilt, w and V at fixed s_tag and s_num."""
    best = attempt(levers, T, t, z)
    for step in range(steps):
        move = rng.normal(size=(4, len(levers.w))) * 0.8 ** (step / 4)
        move *= rng.integers(0, 2, move.shape)
        to = best.levers._replace(
            log_gain=best.levers.log_gain + 0.3 * move[0],
            tilt=best.levers.tilt + move[1] * np.exp(rng.uniform(-8, 0)),
            w=best.levers.w * np.exp(move[2]),
            V=1 + (best.levers.V - 1) * np.exp(move[3]),
        )
        new = attempt(to, T, t, z)
        better = new.error < best.error
        chosen = Levers(*(np.where(better, a, b) for a, b in zip(to, best.levers, strict=True)))
        error, sink = (np.where(better, new[i], best[i]) for i in (1, 2))
        best = Tried(chosen, error, sink)
    return best


def _ratios(
    rng: np.random.Generator,
    n: int,
    ratio: Callable[[Tried, Forced, float], Float[np.ndarray, " case"]],
) -> Float[np.ndarray, " case"]:
    found, count = [], 0
    while count < n:
        T, t = cases.shape(rng, t_least=2, n_least=3)
        z = cases.magnitude(rng)
        steps = int(rng.choice([0, 60]))
        seen = descend(rng, _draw(rng, T, z, 20 * cases.GROUP), T, t, z, steps)
        active = (6 * (T - t) * seen.error <= z) & (seen.error >= LEAST * z)
        kept = Tried(
            Levers(*(v[active] for v in seen.levers)), seen.error[active], seen.sink[active]
        )
        found.append(ratio(kept, forced(T, t, z, kept.error), z) / (1 + 1e-9))
        count += len(found[-1])
    return np.concatenate(found)


def gain_forced(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """(i): Lam / (G a)."""
    return _ratios(rng, n, lambda v, f, z: over(f.contrast, np.exp(v.levers.log_gain) * v.sink))


def sink_forced(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """(ii): (1 - a) (n-2) Lam / ((n - 2 + t e^{z^2}) U)."""
    return _ratios(rng, n, lambda v, f, z: over(1 - v.sink, f.sink_defect, 1e-15))


def scale_forced(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """(iii): ((n-2) Lam / U - t e^{z^2}) / e^{s_tag - 1 + |s_num| z}."""
    return _ratios(rng, n, lambda v, f, z: over(f.e_scale, np.exp(v.levers.log_scale)))
