"""What can be changed in the larger toy while it runs, for causal tests."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

from toy.larger.shape import Shape


class Edit(NamedTuple):
    """What is changed while the model runs.

    cut: attention that is forbidden (each query keeps some key; the rest is renormalised).
    flat: layers whose attention is made uniform. mute: layers whose MLP writes `writes` instead.
    shift: added to the stream after layer 1.
    """

    cut: Bool[Array | np.ndarray, "layer batch head query key"]
    flat: Bool[Array | np.ndarray, " layer"]
    mute: Bool[Array | np.ndarray, " layer"]
    writes: Float[Array | np.ndarray, "layer d_model"]
    shift: Float[Array | np.ndarray, "batch seq d_model"]


def no_edit(shape: Shape, batch: int, seq: int) -> Edit:
    """Nothing is changed."""
    return Edit(
        cut=np.zeros((shape.layers, batch, shape.heads, seq, seq), bool),
        flat=np.zeros(shape.layers, bool),
        mute=np.zeros(shape.layers, bool),
        writes=np.zeros((shape.layers, shape.d_model), np.float32),
        shift=np.zeros((batch, seq, shape.d_model), np.float32),
    )
