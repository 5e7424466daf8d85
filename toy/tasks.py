"""The averaging task: the mean of the numbers after [SEP], wherever [SEP] stands.

Zhang, Khan, Papyan (2025), arXiv 2502.00919, Section 4.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from toy.errors import NoSegment

Distribution = Literal["gaussian", "uniform", "laplace"]

DISTRIBUTIONS = {
    "gaussian": jax.random.normal,
    "uniform": lambda key, shape: jax.random.uniform(
        key, shape, minval=-float(np.sqrt(3)), maxval=float(np.sqrt(3))
    ),
    "laplace": lambda key, shape: jax.random.laplace(key, shape) * float(np.sqrt(0.5)),
}
"""All with mean 0 and variance 1: tails e^{-x^2/2}, none (|x| <= sqrt 3), and e^{-sqrt(2) |x|}."""


class Batch(NamedTuple):
    """Sequences of different lengths, padded with zeros; positions count from 1."""

    x: Float[Array, "batch seq"]
    t: Int[Array, " batch"]  # of [SEP]
    last: Int[Array, " batch"]  # of the read-out: the length T
    target: Float[Array, " batch"]


def mean_after(
    x: Float[Array, "batch seq"], t: Int[Array, " batch"], last: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    """sum_{t < i <= T} x_i / (T - t)."""
    i = jnp.arange(1, x.shape[1] + 1)[None]
    after = (i > t[:, None]) & (i <= last[:, None])
    return jnp.where(after, x, 0.0).sum(axis=1) / (last - t).astype(x.dtype)


def averaging(
    key: Key[Array, ""],
    *,
    batch: int,
    shortest: int = 16,
    longest: int = 32,
    data: Distribution = "gaussian",
) -> Batch:
    """T uniform on shortest..longest, t uniform on 1..T-1, x_i independent and standardised.

    Raises `NoSegment` where a sequence could be too short to hold [SEP] and a number.
    """
    if not 2 <= shortest <= longest:
        raise NoSegment(
            f"lengths {shortest}..{longest}: give 2 <= shortest <= longest, [SEP] and a number"
        )
    for_x, for_t, for_last = jax.random.split(key, 3)
    last = jax.random.randint(for_last, (batch,), shortest, longest + 1)
    t = jax.random.randint(for_t, (batch,), 1, last)
    i = jnp.arange(1, longest + 1)[None]
    number = (i != t[:, None]) & (i <= last[:, None])
    x = jnp.where(number, DISTRIBUTIONS[data](for_x, (batch, longest)), 0.0)
    return Batch(x, t, last, mean_after(x, t, last))
