"""Massive activations: |h| > 100 and |h| ≥ 1000 · median |h| of the state.

Few huge scalars at few tokens. Sun et al. 2024, "Massive Activations in Large Language Models",
arXiv:2402.17762, section 2; the state is one sequence at one depth, as there. Which block writes
them, what erases them, and how long they live: `spells.py`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

LEAST = 100.0
RATIO = 1000.0


class Massive(NamedTuple):
    """Where the massive activations are and what they are, one entry each, by depth."""

    depth: Int[np.ndarray, " found"]
    batch: Int[np.ndarray, " found"]
    token: Int[np.ndarray, " found"]
    dim: Int[np.ndarray, " found"]
    value: Float[np.ndarray, " found"]


class Peak(NamedTuple):
    """The largest |h| of each depth: where, what, and over the median of its own state."""

    ratio: Float[np.ndarray, " depth"]
    batch: Int[np.ndarray, " depth"]
    token: Int[np.ndarray, " depth"]
    dim: Int[np.ndarray, " depth"]
    value: Float[np.ndarray, " depth"]


def is_massive(
    resid: Float[np.ndarray, "depth batch seq d_model"],
    *,
    least: float = LEAST,
    ratio: float = RATIO,
) -> Bool[np.ndarray, "depth batch seq d_model"]:
    """Both conditions, entry by entry."""
    size = np.abs(resid)
    return (size > least) & (size >= ratio * np.median(size, axis=(2, 3), keepdims=True))


def massive(
    resid: Float[np.ndarray, "depth batch seq d_model"],
    *,
    least: float = LEAST,
    ratio: float = RATIO,
) -> Massive:
    """The massive activations of a trace, one by one.

    Examples:
        >>> resid = np.ones((1, 1, 2, 4))  # depth batch seq d_model
        >>> resid[0, 0, 1, 3] = -2000
        >>> found = massive(resid)
        >>> found.token.tolist(), found.dim.tolist(), found.value.tolist()
        ([1], [3], [-2000.0])
    """
    depth, batch, token, dim = np.nonzero(is_massive(resid, least=least, ratio=ratio))
    return Massive(depth, batch, token, dim, resid[depth, batch, token, dim])


def peaks(resid: Float[np.ndarray, "depth batch seq d_model"]) -> Peak:
    """max |h| / median |h|, per depth; infinite where the median is 0 and the maximum is not.

    Examples:
        >>> resid = np.full((1, 1, 2, 4), 2.0)
        >>> resid[0, 0, 1, 3] = -2000
        >>> peaks(resid).ratio.item()
        1000.0
    """
    size = np.abs(resid)
    depth = np.arange(len(resid))
    flat = size.reshape(len(resid), -1).argmax(axis=1)
    batch, token, dim = np.unravel_index(flat, resid.shape[1:])
    median = np.median(size, axis=(2, 3))[depth, batch]
    value = resid[depth, batch, token, dim]
    unbounded = np.where(value == 0, 0.0, np.inf).astype(resid.dtype)
    ratio = np.divide(np.abs(value), median, out=unbounded, where=median > 0)
    return Peak(ratio, batch, token, dim, value)


def medians(
    resid: Float[np.ndarray, "batch seq d_model"], real: Bool[np.ndarray, "batch seq"]
) -> Float[np.ndarray, " batch"]:
    """median |h| of each sequence's state, without its padding (which would pull it anywhere)."""
    return np.array([np.median(np.abs(x[r])) for x, r in zip(resid, real, strict=True)])


def massive_entries(
    resid: Float[np.ndarray, "batch seq d_model"],
    real: Bool[np.ndarray, "batch seq"],
    *ratios: float,
    least: float = LEAST,
) -> list[Bool[np.ndarray, "batch seq d_model"]]:
    """`is_massive` at one depth, of the tokens that are not padding, for each of the ratios."""
    size = np.abs(resid)
    large = (size > least) & real[..., None]
    if not large.any():  # medians cost more than all else here; early states need none
        return [large for _ in ratios]
    median = medians(resid, real)[:, None, None]
    return [large & (size >= ratio * median) for ratio in ratios]
