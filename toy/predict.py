"""Success from where a seed starts, before any training: logistic regression with a control."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

RIDGE = 1.0
STEPS = 50


class Prediction(NamedTuple):
    """Held-out accuracy a draw, beside that of a guess which knows the cells' base rates alone."""

    names: tuple[str, ...]
    coefficients: Float[np.ndarray, " feature"]
    accuracy: Float[np.ndarray, " draw"]  # mean over the cells
    control: Float[np.ndarray, " draw"]
    draws: int
    cells: int


def logistic(
    features: Float[np.ndarray, "case feature"], hit: Bool[np.ndarray, " case"]
) -> Float[np.ndarray, " feature"]:
    """argmin_b sum log(1 + e^{-y b.x}) + |b|^2 RIDGE / 2 with y = +-1, by Newton's method."""
    b = np.zeros(features.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(features @ b, -500, 500)))
        slope = features.T @ (p - hit) + RIDGE * b
        curvature = (features * (p * (1 - p))[:, None]).T @ features + RIDGE * np.eye(len(b))
        b = b - np.linalg.solve(curvature, slope)
    return b


def predict(
    features: Float[np.ndarray, "draw feature"],
    names: tuple[str, ...],
    found: Bool[np.ndarray, "cell draw"],
) -> Prediction:
    """Fit on the draws with an even number, judge on the others.

    Every cell has its own intercept, in the control as well: what is gained is due to the
    features. A draw is in all cells or in none of the halves.
    """
    cells, draws = found.shape
    fit, judge = np.arange(0, draws, 2), np.arange(1, draws, 2)
    scale = features[fit].std(axis=0)
    scaled = features / np.where(scale > 0, scale, 1.0)

    def cases(which: np.ndarray, width: int) -> Float[np.ndarray, "case feature"]:
        intercepts = np.repeat(np.eye(cells), len(which), axis=0)
        return np.hstack([np.tile(scaled[which, :width], (cells, 1)), intercepts])

    def judged(width: int) -> tuple[Float[np.ndarray, " feature"], Float[np.ndarray, " draw"]]:
        b = logistic(cases(fit, width), found[:, fit].ravel())
        guess = (cases(judge, width) @ b > 0).reshape(cells, len(judge))
        return b[:width], (guess == found[:, judge]).mean(axis=0)

    width = features.shape[1]
    coefficients, accuracy = judged(width)
    return Prediction(names, coefficients, accuracy, judged(0)[1], len(judge), cells)
