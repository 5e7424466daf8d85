"""How far a compression moved every block's weights: plainly, and by what the model reads."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from bridge.compression import Compression


class Moved(NamedTuple):
    """By block, in order of depth.

    weight: Δ_W = Σ ‖W - Ŵ‖² / Σ parameters over the block's linears. scaled: the mean over them of
    ‖(W - Ŵ)D‖ / ‖WD‖, D = diag √E[x²]. density: numbers kept over parameters, of all blocks.
    """

    weight: Float[np.ndarray, " block"]
    scaled: Float[np.ndarray, " block"]
    density: float


def moved(done: "Compression") -> Moved:
    """Of the rows of a compression; a linear of another shape weighs by its parameters in Δ_W."""
    from bridge.sites import block_of

    errors: dict[int, list[float]] = {}
    for row in done.rows:
        errors.setdefault(block_of(row.name), []).append(row.error)
    blocks = sorted(errors)
    change = done.block_delta_w
    return Moved(
        np.array([change[block] for block in blocks]),
        np.array([np.mean(errors[block]) for block in blocks]),
        done.density,
    )
