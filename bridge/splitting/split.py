"""A ≈ L + S, and the alternation that defines it."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ctr_kernels.hard_threshold import hard_threshold

Matrix = Float[Tensor, "d_out d_in"]


class Split(NamedTuple):
    """left @ right + sparse; `note` says what was done instead where the fast way was not sound."""

    left: Float[Tensor, "d_out rank"]
    right: Float[Tensor, "rank d_in"]
    sparse: Float[Tensor, "d_out d_in"]
    note: str = ""


def thresholded(matrix: Matrix, keep: int, of: int | None = None) -> Matrix:
    """HT_k: the `keep` largest magnitudes of each row, or of every `of` consecutive entries."""
    if of is None:
        return hard_threshold(matrix, keep)
    return hard_threshold(matrix.reshape(-1, of), keep).reshape(matrix.shape)


@dataclass(frozen=True)
class FullSVD:
    """S₀ = 0; Lₙ = SVDᵣ(A - Sₙ₋₁); Sₙ = HT_k(A - Lₙ): a whole SVD in every iteration.

    Zhang and Papyan 2024, arXiv:2409.13652, algorithm 1.
    """

    def __call__(
        self,
        target: Matrix,
        *,
        rank: int,
        keep: int,
        iterations: int,
        scale: Float[Tensor, " d_in"] | None = None,
        of: int | None = None,
    ) -> Split:
        """`iterations` rounds, in the dtype of `target`; `scale` is not needed here.

        `keep` entries are kept of each row, or of every `of` consecutive ones.
        """
        sparse = torch.zeros_like(target)
        left, right = target[:, :0], target[:0]
        for _ in range(iterations):
            u, s, vt = torch.linalg.svd(target - sparse, full_matrices=False)
            left, right = u[:, :rank] * s[:rank], vt[:rank]
            sparse = thresholded(target - left @ right, keep, of)
        return Split(left, right, sparse)
