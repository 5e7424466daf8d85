"""The definition, by a stable sort."""

import torch
from jaxtyping import Float
from torch import Tensor


def hard_threshold(x: Float[Tensor, "rows d_in"], keep: int) -> Float[Tensor, "rows d_in"]:
    """y_ij = x_ij where |x_ij| is among the `keep` largest of row i, else 0.

    Of equal magnitudes the lower index stays, so exactly `keep` entries of a row survive (a
    survivor may itself be zero). Entries must not be NaN. Raises ValueError where `keep` is
    not in 0..d_in.
    """
    if not 0 <= keep <= x.shape[1]:
        raise ValueError(f"hard_threshold: keep={keep} of rows of {x.shape[1]}")
    order = x.abs().argsort(dim=1, descending=True, stable=True)
    kept = torch.zeros_like(x, dtype=torch.bool).scatter_(1, order[:, :keep], True)
    return torch.where(kept, x, 0)
