"""The theorem's weights have rank one where the paper speaks of low rank: W_V1 and W_Q2 W_K2^T."""

import numpy as np
from jaxtyping import Float

from toy.statements import literal
from toy.statements.cases import over
from toy.statements.claim import Claim
from toy.transformer import Weights, theorem_weights


def _rank_one(
    matrices: Float[np.ndarray, "case d_model d_model"],
) -> Float[np.ndarray, " case"]:
    sizes = np.linalg.svd(matrices, compute_uv=False)
    return over(sizes[:, 1], 4 * literal.UNIT * sizes[:, 0])


def _weights(rng: np.random.Generator, n: int) -> list[Weights]:
    each = zip(1 + rng.exponential(10, n), rng.normal(size=n), rng.normal(size=n), strict=True)
    return [theorem_weights(*map(float, one)) for one in each]


def rank_v1(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """sigma_2(W_V1) = 0, over the rounding of a singular value."""
    return _rank_one(np.stack([np.asarray(v.W_V1) for v in _weights(rng, n)]))


def rank_qk(rng: np.random.Generator, n: int) -> Float[np.ndarray, " case"]:
    """sigma_2(W_Q2 W_K2^T) = 0, over the rounding of a singular value."""
    each = [np.asarray(v.W_Q2) @ np.asarray(v.W_K2).T for v in _weights(rng, n)]
    return _rank_one(np.stack(each))


CLAIMS = {
    "rank of W_V1": Claim("rank W_V1 = 1", "Closed form", rank_v1),
    "rank of W_QK": Claim("rank W_Q2 W_K2^T = 1", "Closed form", rank_qk),
}
