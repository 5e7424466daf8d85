"""Segments as colours: y = (v − v̄) Uᵀ, U the leading eigenvectors of the covariance of v.

The picture of Zhang & Papyan 2025 ("Catch, Tag, and Release"): the token vectors of one
sequence (a head's outputs, or the stream) projected on their first two or three principal
components, each mapped to one of red, green and blue. Tokens that carry the same tag get the
same colour.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mech.errors import BadInput


class Segments(NamedTuple):
    """Tokens in the plane of their principal components.

    colour in [0, 1], one channel a component; a channel without variance (or without a
    component) is 0.5 throughout. share is each component's part of the total variance, 0 for
    tokens that are all alike.
    """

    colour: Float[np.ndarray, "seq 3"]
    coordinate: Float[np.ndarray, "seq component"]
    axis: Float[np.ndarray, "component d"]
    share: Float[np.ndarray, " component"]


def segments(vectors: Float[np.ndarray, "seq d"], components: int = 3) -> Segments:
    """Principal components of the tokens of one sequence, with signs that do not depend on luck.

    Each axis points where its largest entry is positive. Raises BadInput for a number of
    components other than 2 or 3, or larger than the data has.
    """
    if components not in (2, 3):
        raise BadInput(f"a picture has 2 or 3 components, not {components}")
    if components > min(vectors.shape):
        raise BadInput(
            f"{vectors.shape[0]} tokens of {vectors.shape[1]} dimensions have fewer than "
            f"{components} components: ask for fewer"
        )
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    # The eigenvectors of the covariance are the right singular vectors, found without squaring.
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    real = singular > _rounding(vectors)
    axes = axes[:components] * _signs(axes[:components])
    coordinate = centred @ axes.T * real[:components]
    variance = np.where(real, singular, 0.0) ** 2
    share = variance[:components] / (variance.sum() or 1.0)
    return Segments(_colour(coordinate), coordinate, axes, share)


def _rounding(vectors: np.ndarray) -> float:
    """Singular values below this are rounding: of the input's own precision, and of the SVD."""
    relative = np.finfo(vectors.dtype).eps + max(vectors.shape) * np.finfo(np.float64).eps
    return float(np.linalg.norm(vectors.astype(np.float64)) * relative)


def _signs(axes: np.ndarray) -> np.ndarray:
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return np.where(largest < 0, -1.0, 1.0)


def _colour(coordinate: np.ndarray) -> np.ndarray:
    colour = np.full((len(coordinate), 3), 0.5)
    low, high = coordinate.min(axis=0), coordinate.max(axis=0)
    for channel in np.flatnonzero(high > low):
        span = high[channel] - low[channel]
        colour[:, channel] = (coordinate[:, channel] - low[channel]) / span
    return colour
