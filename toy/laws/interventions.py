"""Ways to make a 2 x 2 matrix cheaper: what is kept of W, given the sizes of what it acts on.

Each maps (W, left, right) to the matrix that replaces W; left and right are the root mean squares
of the coordinates that meet its rows and its columns (x W y^T).
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Float

Matrix = Float[np.ndarray, "*seeds 2 2"]
Sizes = Float[np.ndarray, "*seeds 2"]
Intervention = Callable[[Matrix, Sizes, Sizes], Matrix]


def largest(W: Matrix, score: Matrix, kept: int) -> Matrix:
    """W where its score is among the `kept` largest of the matrix, else 0."""
    flat = score.reshape(*score.shape[:-2], 4)
    order = np.argsort(-flat, axis=-1, kind="stable")
    rank = np.argsort(order, axis=-1, kind="stable")
    return np.where(rank.reshape(score.shape) < kept, W, 0.0)


def magnitude(W: Matrix, left: Sizes, right: Sizes, *, kept: int) -> Matrix:
    """Keep the largest |W|."""
    return largest(W, np.abs(W), kept)


def wanda(W: Matrix, left: Sizes, right: Sizes, *, kept: int) -> Matrix:
    """Keep the largest |W| times the size of what it meets (Sun et al. 2023, arXiv 2306.11695).

    A bilinear form meets an input on either side; a value matrix has right = 1. Compared over the
    matrix, not by output: a 2 x 2 matrix has too few entries a row.
    """
    return largest(W, np.abs(W) * left[..., :, None] * right[..., None, :], kept)


def truncated(W: Matrix, left: Sizes, right: Sizes, *, rank: int) -> Matrix:
    """The nearest matrix of this rank (Eckart and Young, 1936)."""
    U, sigma, Vh = np.linalg.svd(W)
    return (U * np.where(np.arange(2) < rank, sigma, 0.0)[..., None, :]) @ Vh


def second(W: Matrix, left: Sizes, right: Sizes) -> Matrix:
    """W without its first singular direction."""
    return W - truncated(W, left, right, rank=1)


def sparse_plus_low_rank(W: Matrix, left: Sizes, right: Sizes) -> Matrix:
    """Rank one, and the largest entry of what it leaves."""
    low = truncated(W, left, right, rank=1)
    return low + largest(W - low, np.abs(W - low), 1)


def quantised(W: Matrix, left: Sizes, right: Sizes, *, bits: int) -> Matrix:
    """Rounded to multiples of max|W| / (2^(bits-1) - 1)."""
    step = np.abs(W).max(axis=(-2, -1), keepdims=True) / (2 ** (bits - 1) - 1)
    return np.round(W / step) * step


INTERVENTIONS: dict[str, Intervention] = {
    "magnitude, keep 2 of 4": partial(magnitude, kept=2),
    "magnitude, keep 1 of 4": partial(magnitude, kept=1),
    "Wanda, keep 2 of 4": partial(wanda, kept=2),
    "Wanda, keep 1 of 4": partial(wanda, kept=1),
    "rank 1": partial(truncated, rank=1),
    "rank 1 + 1 entry": sparse_plus_low_rank,
    "without the first direction": second,
    "rank 0": partial(truncated, rank=0),
    "8 bits": partial(quantised, bits=8),
    "4 bits": partial(quantised, bits=4),
    "3 bits": partial(quantised, bits=3),
    "2 bits": partial(quantised, bits=2),
}


def equal_noise(rng: np.random.Generator, change: Matrix, draws: int) -> Float[np.ndarray, "..."]:
    """`draws` Gaussian directions with the Frobenius norm of each change; draws lead."""
    noise = rng.standard_normal((draws, *change.shape))
    norm = np.linalg.norm(noise, axis=(-2, -1), keepdims=True)
    return noise / norm * np.linalg.norm(change, axis=(-2, -1), keepdims=True)
