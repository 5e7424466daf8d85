"""Radix select on the bits of |x|: the order of non-negative floats is the order of their bits.

The 31 bits are read as digits of 11, 10 and 10. Each digit costs one histogram of the entries
that agree with the threshold so far, so a row is read a few times and never sorted. Compiled
functions carry `no_type_check`: a shape checker's wrapper around them is nothing that numba
can compile.
"""

from typing import no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

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
    _select(row_major.numpy(), keep, kept.numpy())
    return kept


@numba.njit(cache=True, nogil=True)
@no_type_check
def _digit(histogram, wanted):
    """The digit of the wanted-th largest entry, and how many entries of that digit are wanted."""
    digit = len(histogram) - 1
    while histogram[digit] < wanted:
        wanted -= histogram[digit]
        digit -= 1
    return digit, wanted


@numba.njit(cache=True, nogil=True)
@no_type_check
def _select(x, keep, kept):
    rows, d_in = x.shape
    magnitude = np.int32(0x7FFFFFFF)
    high = np.empty(2048, np.int32)
    low = np.empty(1024, np.int32)
    tail = np.empty(d_in, np.int32)
    for i in range(rows):
        row = x[i]
        bits = row.view(np.int32)
        high[:] = 0
        for j in range(d_in):
            high[(bits[j] & magnitude) >> 20] += 1
        first, wanted = _digit(high, keep)
        # The lower 20 bits of the entries that share the first digit; written without a
        # branch: an entry of another digit is overwritten by the next one.
        count = 0
        for j in range(d_in):
            b = bits[j] & magnitude
            tail[count] = b & 0xFFFFF
            count += (b >> 20) == first
        low[:] = 0
        for j in range(count):
            low[tail[j] >> 10] += 1
        second, wanted = _digit(low, wanted)
        low[:] = 0
        for j in range(count):
            if tail[j] >> 10 == second:
                low[tail[j] & 0x3FF] += 1
        third, wanted = _digit(low, wanted)
        threshold = np.int32((first << 20) | (second << 10) | third)
        for j in range(d_in):
            b = bits[j] & magnitude
            tie = b == threshold
            kept[i, j] = row[j] if b > threshold or (tie and wanted > 0) else np.float32(0)
            wanted -= tie
