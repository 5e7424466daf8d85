"""A linear bound to the array it reads: what a step calls, with nothing left to look up."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from bridge.decode.gated import Gated

Bound = Callable[[], np.ndarray]
"""Computes y of the x that it was bound to; y [batch, d_out] as compiled code reads it."""
Bind = Callable[[nn.Module, Tensor], Bound]
"""A linear, and the memory that it reads."""


def bits(x: Tensor) -> np.ndarray:
    """The same memory; bfloat16 as its 16 bits, which numpy knows no name for."""
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


def bound(module: nn.Module, x: Float[Tensor, "batch d_in"]) -> Bound:
    """`module` of `x`, whose memory is read anew at every call."""
    if isinstance(module, Gated) and module.prepared is not None and not module.count:
        return written(module.prepared, x)
    return written(module, x)


def written(function: Callable[[Tensor], Tensor], x: Float[Tensor, "batch d_in"]) -> Bound:
    """`function` of `x`."""
    return lambda: bits(function(x))
