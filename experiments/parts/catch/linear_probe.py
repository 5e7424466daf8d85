"""A linear probe that chooses its layer and its ridge inside the folds that it is fitted on."""

import numpy as np
from jaxtyping import Bool, Float, Int

RIDGES = (0.01, 0.1, 1.0, 10.0)  # of the mean squared length of a row


def correct(
    features: Float[np.ndarray, "layer item d"],
    label: Int[np.ndarray, " item"],
    fold: Int[np.ndarray, " item"],
) -> Bool[np.ndarray, " item"]:
    """sign(k_i (K + λ)⁻¹ y) = y_i, with K = X Xᵀ of the folds that item i is not in.

    y = ±1. Columns are centred and scaled on those folds. Layer and λ are those with most items
    right when each of these folds is predicted from the others of them; the first of equals. The
    held-out fold takes no part in any choice.
    """
    y = 2.0 * label - 1
    right = np.zeros(len(label), bool)
    for held in np.unique(fold):
        inside, outside = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
        scores = np.zeros((len(features), len(RIDGES)))
        for layer, x in enumerate(features):
            for inner in np.unique(fold[inside]):
                fit, ask = inside[fold[inside] != inner], inside[fold[inside] == inner]
                scores[layer] += (_predicted(x, y, fit, ask) * y[ask] > 0).sum(axis=1)
        layer, ridge = np.unravel_index(np.argmax(scores), scores.shape)
        said = _predicted(features[layer], y, inside, outside)[ridge]
        right[outside] = said * y[outside] > 0
    return right


def _predicted(
    x: Float[np.ndarray, "item d"],
    y: Float[np.ndarray, " item"],
    fit: Int[np.ndarray, " fit"],
    ask: Int[np.ndarray, " ask"],
) -> Float[np.ndarray, "ridge ask"]:
    """Predictions for every ridge from one eigendecomposition; 0 where nothing varies."""
    known, asked = x[fit].astype(np.float64), x[ask].astype(np.float64)
    mean, width = known.mean(axis=0), known.std(axis=0)
    real = width > 1e-6 * max(float(width.max()), 1e-300)
    known, asked = ((part - mean)[:, real] / width[real] for part in (known, asked))
    if not real.any():
        return np.zeros((len(RIDGES), len(ask)))
    values, vectors = np.linalg.eigh(known @ known.T)
    middle = y[fit].mean()
    turned = vectors.T @ (y[fit] - middle)
    cross = asked @ known.T @ vectors
    scale = values.mean()
    return np.stack([cross @ (turned / (values + ridge * scale)) for ridge in RIDGES]) + middle
