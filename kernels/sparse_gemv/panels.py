"""The list of kept channels becomes panels: digits, and the addresses of their rows."""

import math
from typing import no_type_check

import numpy as np
from numba import njit
from numba.np.numpy_support import carray

from ctr_kernels.sparse_gemv.digits import (
    CLASSES,
    LARGEST,
    PANEL,
    SPREAD,
    STEP,
    fraction_of,
    places_of,
)
from ctr_kernels.sparse_gemv.vector import pointer


@njit(nogil=True)
@no_type_check
def panelled(f, inputs, scratch, n_kept, batch, middle):
    """Panels of all rows of the batch, block by block; returns how many blocks there are.

    A block is what is kept of at most STEP channels of one group. Panel p of block k: starts_k <=
    p < starts_k+1. `middle` is taken off every code (128: signed bytes; 8: no zeros are stored).
    Rows of the batch that digits cannot hold are marked as special.
    """
    channels = carray(pointer(scratch + f.kept), n_kept + 1, np.int32)
    starts = carray(pointer(scratch + f.starts), f.d_in + 1, np.int64)
    special = carray(pointer(scratch + f.special), batch, np.int64)
    special[:] = 0
    i, slot, panel, block = 0, 0, 0, 0
    while i < n_kept:
        group = channels[i] // f.group
        low = group * f.group
        low += (channels[i] - low) // STEP * STEP
        high = min(low + STEP, (group + 1) * f.group)
        j = i + 1
        while j < n_kept and channels[j] < high:
            j += 1
        starts[block] = panel
        for b in range(batch):
            if special[b] == 0:
                bits = carray(
                    pointer(scratch + f.kept_x + 4 * (b * f.list_size + i)), j - i, np.int32
                )
                held = split(f, inputs, scratch, channels[i:j], bits, slot, panel, b, group, middle)
                special[b] = held[2]
                slot, panel = held[0], held[1]
        i = j
        block += 1
    starts[block] = panel
    return block


@njit(nogil=True)
@no_type_check
def split(f, inputs, scratch, channels, bits, slot, panel, row, group, middle):
    """A block's panels by magnitude: next slot and panel, and whether digits do not hold it."""
    top, low = span(bits)
    if top >= LARGEST:
        return slot, panel, 1
    base = max(top - SPREAD, 1)
    if low >= base:
        slot = written(f, inputs, scratch, channels, bits, base, slot, panel, row, group, middle)
        return slot, panel + 1, 0
    taken = carray(pointer(scratch + f.taken), (4, STEP), np.int32)
    left = 0
    for k in range(len(bits)):
        taken[0, left], taken[1, left] = channels[k], bits[k]
        left += (bits[k] & 0x7FFFFFFF) != 0
    for _ in range(CLASSES):
        if left == 0:
            return slot, panel, 0
        top, low = span(taken[1, :left])
        base = max(top - SPREAD, 1)
        n, rest = 0, 0
        for k in range(left):
            channel, number = taken[0, k], taken[1, k]
            if max((number >> 23) & 255, 1) >= base:
                taken[2, n], taken[3, n] = channel, number
                n += 1
            else:
                taken[0, rest], taken[1, rest] = channel, number
                rest += 1
        slot = written(
            f, inputs, scratch, taken[2, :n], taken[3, :n], base, slot, panel, row, group, middle
        )
        panel += 1
        left = rest
    return slot, panel, np.int64(left > 0)


@njit(nogil=True)
@no_type_check
def span(bits):
    """Largest and smallest exponent field."""
    top, low = 0, 255
    for k in range(len(bits)):
        exponent = (bits[k] >> 23) & 255
        top, low = max(top, exponent), min(low, exponent)
    return top, low


@njit(nogil=True)
@no_type_check
def written(f, inputs, scratch, channels, bits, base, slot, panel, row, group, middle):
    """One panel of numbers whose exponents are `base` to `base` + SPREAD; returns the next slot."""
    n = len(bits)
    count = (n + 3) // 4 * 4
    fraction, places = fraction_of(inputs), places_of(inputs)
    addresses = carray(pointer(scratch + f.addresses + 8 * slot), count, np.int64)
    whole = carray(pointer(scratch + f.taken + 16 * STEP), count, np.int32)
    total = 0
    for k in range(n):
        number = bits[k]
        exponent = (number >> 23) & 255
        size = (number & 0x7FFFFF) | (0x800000 if exponent > 0 else 0)
        size = (size >> (23 - fraction)) << (max(exponent, 1) - base)
        size = -size if number < 0 else size
        whole[k] = size
        total += size
        addresses[k] = f.values + f.row_bytes * np.int64(channels[k])
    for k in range(n, count):
        whole[k], addresses[k] = 0, addresses[n - 1]
    made = carray(pointer(scratch + f.panels), panel + 1, PANEL)
    for d in range(places):
        digits = carray(pointer(scratch + f.digits + places * slot + d * count), count, np.int8)
        among = 0
        for k in range(count):
            digit = ((whole[k] + 128) & 255) - 128
            digits[k] = digit
            whole[k] = (whole[k] - digit) >> 8
            among += digit
        made[panel].start[d] = -middle * among
    factor = math.ldexp(1.0, base - 127 - fraction)
    made[panel].first, made[panel].count = slot, count
    made[panel].row, made[panel].group = row, group
    made[panel].factor = factor
    made[panel].shift = 0.0 if middle else -factor * total
    return slot + count
