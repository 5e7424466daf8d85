"""How many directions a matrix has: its singular values and their effective number."""

import numpy as np
from jaxtyping import Float


def singular_values(matrix: Float[np.ndarray, "*batch m n"]) -> Float[np.ndarray, "*batch k"]:
    """Largest first; NaN for a matrix that is not finite."""
    finite = np.isfinite(matrix).all(axis=(-2, -1), keepdims=True)
    values = np.linalg.svd(np.where(finite, matrix, 0.0), compute_uv=False)
    return np.where(np.squeeze(finite, axis=-1), values, np.nan)


def effective_rank(values: Float[np.ndarray, "*batch k"]) -> Float[np.ndarray, "*batch"]:
    """exp(H(sigma / sum sigma)): 1 for one direction, k for k equal ones (Roy, Vetterli 2007)."""
    share = values / values.sum(axis=-1, keepdims=True)
    logs = np.log(np.where(share > 0, share, 1.0))  # 0 log 0 = 0, and NaN stays NaN in `share`
    return np.asarray(np.exp(-(share * logs).sum(axis=-1)))
