"""How fast the embedding scale grows once the loss lies on its frontier MSE*(s).

Let k(s) = -d log MSE* / ds. With the other weights at their best, ds = -eta (dMSE*/ds) dstep, so
step ~ 1 / (eta k^2 MSE*) where k changes slowly, and

    gradient flow:      ds / dlog(step) = 1 / k       (1/2 bounded, 2 Gaussian, sqrt(2 s) Laplace).

A rule that divides the mean gradient by its root mean square g, as Adam does, moves by
eta E[g] / sqrt(E[g^2]). E[g] ~ k MSE*. The noise is of the size sqrt(MSE*): for bounded numbers
because a step size that does not fall leaves an error delta m in every output, whose product with
d(f - m)/ds ~ sqrt(MSE*) dominates; for the others because the gradient comes from inputs of
probability about MSE*, each of size 1. Either way the speed is eta sqrt(MSE*) and

    Adam:               ds / dlog(step) = 2 / k       (1 bounded, 4 Gaussian).

The sign of a gradient whose noise is symmetric and seen in every batch moves alike; where the rare
inputs miss most batches it moves by their probability, about MSE*: from 1 / k to 2 / k.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from toy.errors import Refused
from toy.laws import linear, one_large
from toy.laws.residuals import crowds
from toy.laws.tails import TAILS, draw
from toy.train import Recipe, Trained

ORDER = {"sgd": (1.0, 1.0), "adam": (2.0, 2.0), "sign": (1.0, 2.0)}
"""ds / dlog(step) times k: least and most that the derivation allows."""


NEAR = Recipe(
    w_v1=-1.0, w_qk=0.4, w_v2=1.0, w_noise=0.05, s_num_noise=0.05, s_tag=6.0, schedule="constant"
)
"""A start beside the theorem, for gradient descent, which does not find it from further away."""


class Growth(NamedTuple):
    """One training's growth over its last half, by seed."""

    tail: str
    optimizer: str
    learning_rate: float
    step: Int[np.ndarray, " checkpoint"]
    s_tag: Float[np.ndarray, "seed checkpoint"]
    loss: Float[np.ndarray, "seed checkpoint"]
    counted: Bool[np.ndarray, " seed"]
    fvu: Float[np.ndarray, " seed"]
    slope: Float[np.ndarray, " seed"]  # ds / dlog(step), least squares
    steepness: float  # k at the median s of that half
    least: float  # predicted slope
    most: float


def steepness(tail: str, s_tag: float, *, width: float = 0.5) -> float:
    """k(s) = -d log MSE* / ds of the predicted frontier, by a symmetric difference.

    Raises `Refused` for an unknown tail.
    """
    if tail not in TAILS:
        raise Refused(f"no tail {tail!r}: choose one of {', '.join(TAILS)}")
    if np.isinf(TAILS[tail].edge):
        low, high = (one_large.frontier(tail, s_tag + side).loss for side in (-width, width))
    else:
        of = linear.moments(crowds(draw(np.random.default_rng(0), tail, 4000)))
        low, high = (linear.frontier(of, s_tag + side).loss for side in (-width, width))
    return float(np.log(low / high) / (2 * width))


def log_slope(
    step: Int[np.ndarray, " checkpoint"], s_tag: Float[np.ndarray, "seed checkpoint"]
) -> Float[np.ndarray, " seed"]:
    """ds / dlog(step) by least squares over all given checkpoints."""
    log_step = np.log(step) - np.log(step).mean()
    return np.asarray((s_tag * log_step).sum(axis=1) / (log_step**2).sum())


def growth(
    trained: Trained, counted: Bool[np.ndarray, " seed"], fvu: Float[np.ndarray, " seed"]
) -> Growth:
    """Slope and prediction over the last half of a training, for the seeds that are `counted`.

    Raises `Refused` for an optimiser without a law.
    """
    recipe, history = trained.recipe, trained.history
    if recipe.optimizer not in ORDER:
        raise Refused(f"no law for {recipe.optimizer!r}: choose one of {', '.join(ORDER)}")
    late = history.step > history.step[-1] / 2
    those = history.s_tag[counted] if counted.any() else history.s_tag
    k = steepness(recipe.data, float(np.median(those[:, late])))
    least, most = (order / k for order in ORDER[recipe.optimizer])
    return Growth(
        tail=recipe.data,
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        step=history.step,
        s_tag=history.s_tag,
        loss=history.loss,
        counted=counted,
        fvu=fvu,
        slope=log_slope(history.step[late], history.s_tag[:, late]),
        steepness=k,
        least=least,
        most=most,
    )


def flow_time(
    s_tag: Float[np.ndarray, " scale"], loss: Float[np.ndarray, " scale"]
) -> Float[np.ndarray, " scale"]:
    """tau(s) = integral of ds / |dMSE*/ds|: gradient flow along a frontier, in units of 1 / eta.

    log MSE* is taken as linear between neighbours; tau starts as if it had been so for ever.
    """
    k = -np.diff(np.log(loss)) / np.diff(s_tag)
    pieces = (1 / loss[1:] - 1 / loss[:-1]) / k**2
    return np.concatenate([[0.0], np.cumsum(pieces)]) + 1 / (k[0] ** 2 * loss[0])
