"""Rows one after the other: find the threshold by counting (`search`), then copy what is above."""

from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ctr_kernels.cached import cached
from ctr_kernels.hard_threshold.search import MAGNITUDE, threshold
from ctr_kernels.op import Unsupported


def hard_threshold(x: Float[Tensor, "rows d_in"], keep: int) -> Float[Tensor, "rows d_in"]:
    """HT_k(x) as `reference` defines it; float32 in CPU memory."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        raise Unsupported("float32 on a CPU")
    if not 0 <= keep <= x.shape[1]:
        raise ValueError(f"hard_threshold: keep={keep} of rows of {x.shape[1]}")
    if keep in (0, x.shape[1]):
        return x.clone() if keep else torch.zeros_like(x)
    row_major = x.detach().contiguous()
    kept = torch.empty_like(row_major)
    # Nothing is allocated in compiled code: a test that poisons `np.empty` would break it.
    _select(row_major.numpy(), keep, kept.numpy(), np.empty(x.shape[1], np.int32))
    return kept


@cached()
@no_type_check
def _select(x, keep, kept, magnitudes):
    rows, d_in = x.shape
    above = 0
    for i in range(rows):
        bits = x[i].view(np.int32)
        for j in range(d_in):
            magnitudes[j] = bits[j] & MAGNITUDE
        above, ties = threshold(magnitudes, keep, above)
        level = np.int32(above)
        if ties == 0:
            for j in range(d_in):
                kept[i, j] = x[i, j] if magnitudes[j] > level else np.float32(0)
        else:
            for j in range(d_in):
                tie = magnitudes[j] == level
                stays = magnitudes[j] > level or (tie and ties > 0)
                kept[i, j] = x[i, j] if stays else np.float32(0)
                ties -= tie
