"""min over theta of max over inputs of |f - m| / X, as far as many starts find it: no proof.

theta = (s_num, s_tag, W_V1, M, W_V2), twelve reals, some held at 0, with s_tag below a cap that
bounds the sink of a token at 0: A1[i, t] = 1 / (1 + (i-1) e^{1 - s_tag}). Each start descends by
Levenberg's and Marquardt's damped Gauss-Newton steps on p-norms of the error, p = 2, 4, 8, 16.
What it finds is an upper bound on the least error; that it finds no less is evidence only.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from toy.errors import Refused
from toy.inputs import check_magnitude, check_segment
from toy.reduced import Shared, apply, share
from toy.statements.general_family import General
from toy.tasks import Batch
from toy.transformer import Weights

NAMES = ("s_num", "s_tag", "W11", "W12", "W21", "W22", "M11", "M12", "M21", "M22", "V1", "V2")
"""The coordinates of theta: W is W_V1, M is W_Q2 W_K2^T, V is W_V2; indices count from 1."""

POWERS = (2.0, 2.0, 4.0, 8.0, 16.0, 16.0)
KEPT = 16
GRID = 250
"""All of {-X, 0, X}^(T-1) where it has no more inputs than this; a sample of it elsewhere."""


class Found(NamedTuple):
    """The worst error over X of the best starts, least first, and the weights of each."""

    error: Float[np.ndarray, " case"]
    theta: General


def _inputs(T: int, X: float, rng: np.random.Generator) -> Float[np.ndarray, "batch number"]:
    if 3 ** (T - 1) <= GRID:
        grid = np.array(list(itertools.product([-X, 0.0, X], repeat=T - 1)))
    else:
        steps = np.concatenate([np.eye(T - 1), np.tri(T - 1)])
        grid = np.concatenate([X * steps, -X * steps, rng.choice([-X, 0.0, X], (100, T - 1))])
    return np.concatenate([grid, rng.uniform(-X, X, (30, T - 1))])


def _task(T: int, ts: Sequence[int], X: float, rng: np.random.Generator) -> Shared:
    numbers = _inputs(T, X, rng)
    x = np.concatenate([np.insert(numbers, t - 1, 0.0, axis=1) for t in ts])
    t = np.repeat(np.array(ts), len(numbers))
    after = np.arange(1, T + 1) > t[:, None]
    target = (x * after).sum(axis=1) / after.sum(axis=1)
    arrays = (jnp.asarray(v) for v in (x, t, np.full(len(x), T), target))
    return share(Batch(*arrays))


def _weights(theta: Float[Array, " 12"], cap: float) -> Weights:
    s_tag = cap - jax.nn.softplus(cap - theta[1])
    W_V1, M = theta[2:6].reshape(2, 2), theta[6:10].reshape(2, 2)
    return Weights(theta[0], s_tag, W_V1, M, jnp.eye(2), theta[10:12].reshape(2, 1))


def _descend(
    errors: Callable[[Float[Array, " 12"]], Float[Array, " batch"]],
    free: Float[np.ndarray, " 12"],
    start: Float[Array, " 12"],
    power: Float[Array, ""],
    steps: int,
) -> tuple[Float[Array, " 12"], Float[Array, ""]]:
    """The theta of least worst error on the way down the p-norm, and that error."""
    slope = jax.jacfwd(errors)

    def step(state, _):
        theta, error, damping, best, least = state
        worst = jnp.abs(error).max()
        weight = (jnp.abs(error) / worst + 1e-3) ** (power - 2)
        J = slope(theta) * free[None]
        normal = J.T @ (weight[:, None] * J)
        scale = jnp.diag(normal) + 1e-9 * jnp.trace(normal) + 1e-30
        move = jnp.linalg.solve(normal + damping * jnp.diag(scale), J.T @ (weight * error))
        new = errors(theta - move)
        norm, old = (((jnp.abs(v) / worst) ** power).sum() for v in (new, error))
        better = norm < old  # False for NaN
        theta, error = jnp.where(better, theta - move, theta), jnp.where(better, new, error)
        damping = jnp.clip(jnp.where(better, damping / 3, damping * 4), 1e-12, 1e12)
        worst = jnp.abs(error).max()
        best = jnp.where(worst < least, theta, best)
        return (theta, error, damping, best, jnp.minimum(worst, least)), None

    error = errors(start)
    first = jnp.nan_to_num(jnp.abs(error).max(), nan=jnp.inf)
    state, _ = jax.lax.scan(step, (start, error, 1e-2, start, first), None, length=steps)
    return state[3], state[4]


def search(
    T: int,
    ts: Sequence[int],
    X: float,
    *,
    cap: float,
    held: Sequence[str] = (),
    starts: int = 96,
    steps: int = 150,
    seed: int = 0,
) -> Found:
    """The least worst errors found where one theta serves every [SEP] position in `ts`.

    `held` names the coordinates kept at 0. Raises `NoSegment`, `NoMagnitude`, `NotFinite`, and
    `Refused` for a name that is none.
    """
    for t in ts:
        check_segment(T, t)
    check_magnitude(X)
    if unknown := sorted(set(held) - set(NAMES)):
        raise Refused(f"{unknown} are no coordinates: take some of {', '.join(NAMES)}")
    rng = np.random.default_rng(seed)
    free = np.array([name not in held for name in NAMES], dtype=np.float64)
    theta = rng.normal(size=(starts, 12)) * np.exp(rng.normal(size=(starts, 12)))
    theta[:, 1] = cap - np.abs(rng.normal(0, 3, starts))
    theta = theta * free[None]
    with jax.enable_x64(True):
        shared = _task(T, ts, X, rng)

        def errors(point: Float[Array, " 12"]) -> Float[Array, " batch"]:
            return (apply(_weights(point, cap), shared).output - shared.target) / X

        run = jax.jit(jax.vmap(partial(_descend, errors, free, steps=steps), in_axes=(0, None)))
        error = np.full(starts, np.inf)
        for power in POWERS:
            found, least = run(jnp.asarray(theta), jnp.asarray(power))
            error, theta = np.asarray(least), np.asarray(found)
            order = np.argsort(error)[:KEPT]
            error, theta = error[order], theta[order]
        s_tag = np.asarray(jax.vmap(lambda point: _weights(point, cap).s_tag)(theta))
    W_V1, M = theta[:, 2:6].reshape(-1, 2, 2), theta[:, 6:10].reshape(-1, 2, 2)
    return Found(error, General(theta[:, 0], s_tag, W_V1, M, theta[:, 10:]))


def cap_of(T: int, sink: float) -> float:
    """The s_tag at which the last token, among numbers that are all 0, gives [SEP] this much."""
    return float(1 + np.log((T - 1) * sink / (1 - sink)))
