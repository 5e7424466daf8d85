"""How many directions a head's product W_Q W_Kᵀ or W_V W_O has, by three counts of its spectrum.

Only the product says what a head does: (W_Q G)(W_K G⁻ᵀ)ᵀ = W_Q W_Kᵀ for every invertible G, while
the ranks of W_Q G alone can be made anything. Where an input norm has a gain g, it belongs into
the matrices that read through it (`head_weights(fold_norm=True)`), or the same function would
have several ranks.
"""

import numpy as np
from jaxtyping import Float


def product_spectrum(
    left: Float[np.ndarray, "*head m d"], right: Float[np.ndarray, "*head n d"]
) -> Float[np.ndarray, "*head d"]:
    """The singular values of left @ rightᵀ that can be other than 0, largest first.

    With left = Q R and right = P S, QR factorisations, they are those of the d × d matrix R Sᵀ,
    because Q and P have orthonormal columns.
    """
    upper_left, upper_right = (np.linalg.qr(side, mode="r") for side in (left, right))
    return np.linalg.svd(upper_left @ np.swapaxes(upper_right, -1, -2), compute_uv=False)


def effective_rank(values: Float[np.ndarray, "*head k"]) -> Float[np.ndarray, "*head"]:
    """exp(H(σ / Σσ)): 1 for one direction, k for k equal ones (Roy and Vetterli, 2007)."""
    share = values / values.sum(axis=-1, keepdims=True)
    logs = np.log(np.where(share > 0, share, 1.0))
    return np.asarray(np.exp(-(share * logs).sum(axis=-1)))


def stable_rank(values: Float[np.ndarray, "*head k"]) -> Float[np.ndarray, "*head"]:
    """‖W‖²_F / ‖W‖²₂ = Σσ² / σ₁² (Rudelson and Vershynin, 2007): blind to small values."""
    return np.asarray(np.square(values / values[..., :1]).sum(axis=-1))


def energy_rank(
    values: Float[np.ndarray, "*head k"], share: float = 0.9
) -> Float[np.ndarray, "*head"]:
    """The fewest directions that hold `share` of Σσ², as a float."""
    energy = np.cumsum(np.square(values), axis=-1)
    return np.asarray((energy < share * energy[..., -1:]).sum(axis=-1) + 1.0)
