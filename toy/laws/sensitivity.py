"""What a small change of a matrix does to f: the first order, and its closed form at the theorem.

At the theorem's weights with every r_j small, layer 2 is uniform after [SEP], (A1 E)_j = [0, -s].
With V the mean of (x_j - m)^2 after [SEP] and tau = s - 1,

    change of M:     df = V (x_T dM11 + tau dM21)          (dM12, dM22: 0)
    change of W_V1:  df = -s dW21                           (dW11, dW12, dW22: 0)

so E[df^2] = vec(dW)^T H vec(dW) with H diagonal: E[x_T^2 V^2] at 11 and tau^2 E[V^2] at 21 for M,
s^2 at 21 for W_V1. Three entries matter, those that let numbers into keys or tags into numbers; the
entries of the mechanism itself, M22 and W22, only move logits that are already equal. How much of
them can go is not a first-order question: it ends where the query changes sign.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from toy import reduced
from toy.laws.measure import shared
from toy.laws.residuals import Crowds
from toy.laws.tails import Sequences
from toy.transformer import Weights

MATRICES = ("W_V1", "M")
"""M = W_Q2 W_K2^T stands in W_Q2, with W_K2 = 1 (`measure.with_product`)."""

Hessian = Float[np.ndarray, "*seeds 4 4"]
"""Rows and columns: the entries 11, 12, 21, 22."""


def at_theorem(seen: Crowds, s_tag: float, matrix: str) -> Float[np.ndarray, "4 4"]:
    """H in closed form, its means over these sequences."""
    if matrix == "W_V1":
        return np.diag([0.0, 0.0, s_tag**2 * float(seen.weight.mean()), 0.0])
    V = (seen.away**2).sum(axis=1) / seen.n
    own, query = seen.x_last * V, (s_tag - 1) * V
    both = np.stack([own, 0 * own, query, 0 * own], axis=1)
    return np.einsum("c,ci,cj->ij", seen.weight, both, both) / len(V)


@jax.jit
def _hessians(
    weights: Weights, batch: reduced.Shared, weight: Float[Array, " case"]
) -> tuple[Float[Array, "seed 4 4"], Float[Array, "seed 4 4"]]:
    def output(
        W_V1: Float[Array, "2 2"], M: Float[Array, "2 2"], rest: Weights
    ) -> Float[Array, " case"]:
        return reduced.apply(rest._replace(W_V1=W_V1, W_Q2=M), batch).output

    def one(weights: Weights) -> tuple[Float[Array, "4 4"], Float[Array, "4 4"]]:
        by = jax.jacfwd(output, argnums=(0, 1))(weights.W_V1, weights.W_Q2, weights)
        flat = [slope.reshape(-1, 4) for slope in by]
        of_V1, of_M = [(slope * weight[:, None]).T @ slope / len(weight) for slope in flat]
        return of_V1, of_M

    return jax.lax.map(one, weights)


def hessians(weights: Weights, sequences: Sequences) -> dict[str, Hessian]:
    """H by matrix for every seed, from exact derivatives in float64; W_K2 has to be 1."""
    with jax.enable_x64(True):
        cast = Weights(*(jnp.asarray(field, dtype=jnp.float64) for field in weights))
        found = _hessians(cast, shared(sequences), jnp.asarray(sequences.weight))
        return dict(zip(MATRICES, (np.asarray(H) for H in found), strict=True))


def predicted(H: Hessian, change: Float[np.ndarray, "*seeds 2 2"]) -> Float[np.ndarray, "*seeds"]:
    """vec(dW)^T H vec(dW): E[df^2] to first order."""
    flat = change.reshape(*change.shape[:-2], 4)
    return np.asarray(np.einsum("...i,...ij,...j->...", flat, H, flat))
