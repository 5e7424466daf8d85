"""What every CPU kernel of this folder is made of: lists of channels, sums of rows, the end.

Sums are chains of fused multiply-adds in the order of the channels, so a row of the batch has the
same bits whatever the others hold: a channel that it leaves out is added with the coefficient 0.
"""

from typing import no_type_check

import numpy as np
from numba import njit

from ctr_kernels.sparse_gemv.frame import PASS
from ctr_kernels.sparse_gemv.vector import (
    above,
    chain,
    chosen,
    lanes_from,
    narrow,
    narrow_tail,
    number,
    ones,
    packed,
    prefetch,
    put,
    read_rows,
    read_rows_tail,
    splat,
    wide,
    wide_tail,
    width,
)

F4 = np.float32
AHEAD = 2048
"""Bytes: the best of 512 to 4096 where rows are long, and no row is asked for too early."""


@njit(nogil=True)
@no_type_check
def loaded(tag, address, n):
    """Sixteen numbers, or n of them and zeros."""
    return wide(tag, address) if n >= 16 else wide_tail(tag, address, n)


@njit(nogil=True)
@no_type_check
def stored(tag, address, x, n):
    """Sixteen numbers, or n of them."""
    if n >= 16:
        narrow(tag, address, x)
    else:
        narrow_tail(tag, address, x, n)


@njit(nogil=True)
@no_type_check
def split(tag, x, threshold, d_in, batch, kept, kept_x, rest, rest_x, length):
    """Channels kept by any row of the batch, and channels left out by any, each with x or 0.

    Returns how many; both lists are padded to whole passes with x = 0. `rest` 0: not wanted.
    """
    n_kept, n_rest, size = 0, 0, width(tag)
    for j in range(0, d_in, 16):
        n = d_in - j
        lanes = 0xFFFF if n >= 16 else (1 << n) - 1
        t = loaded(F4, threshold + 4 * j, n)
        any_kept, any_rest = 0, 0
        for b in range(batch):
            bits = above(loaded(tag, x + size * (b * d_in + j), n), t) & lanes
            any_kept |= bits
            any_rest |= ~bits & lanes
        where = lanes_from(j)
        narrow(F4, kept + 4 * n_kept, packed(any_kept, where))
        if rest:
            narrow(F4, rest + 4 * n_rest, packed(any_rest, where))
        for b in range(batch):
            v = loaded(tag, x + size * (b * d_in + j), n)
            bits = above(v, t) & lanes
            narrow(F4, kept_x + 4 * (b * length + n_kept), packed(any_kept, chosen(bits, v)))
            if rest:
                left = packed(any_rest, chosen(~bits & lanes, v))
                narrow(F4, rest_x + 4 * (b * length + n_rest), left)
        n_kept += ones(any_kept)
        n_rest += ones(any_rest)
    padded(n_kept, kept, kept_x, batch, length)
    if rest:
        padded(n_rest, rest, rest_x, batch, length)
    return n_kept, n_rest


@njit(nogil=True)
@no_type_check
def padded(n, channels, x, batch, length):
    """Up to PASS entries behind the list: its last channel again, with x = 0."""
    last = number(np.int32, channels + 4 * (n - 1)) if n else np.int32(0)
    for k in range(n, n + PASS):
        put(channels + 4 * k, last)
        for b in range(batch):
            put(x + 4 * (b * length + k), F4(0))


@njit(nogil=True)
@no_type_check
def rows_at(values, row_bytes, channels):
    """Addresses of the rows of one pass."""
    return (
        values + row_bytes * np.int64(number(np.int32, channels)),
        values + row_bytes * np.int64(number(np.int32, channels + 4)),
        values + row_bytes * np.int64(number(np.int32, channels + 8)),
        values + row_bytes * np.int64(number(np.int32, channels + 12)),
        values + row_bytes * np.int64(number(np.int32, channels + 16)),
        values + row_bytes * np.int64(number(np.int32, channels + 20)),
        values + row_bytes * np.int64(number(np.int32, channels + 24)),
        values + row_bytes * np.int64(number(np.int32, channels + 28)),
    )


@njit(nogil=True)
@no_type_check
def weights_at(x):
    """Coefficients of one pass, each in all lanes."""
    return (
        splat(number(F4, x)),
        splat(number(F4, x + 4)),
        splat(number(F4, x + 8)),
        splat(number(F4, x + 12)),
        splat(number(F4, x + 16)),
        splat(number(F4, x + 20)),
        splat(number(F4, x + 24)),
        splat(number(F4, x + 28)),
    )


@njit(nogil=True)
@no_type_check
def ahead(rows, offset):
    """Ask for a line of every row of a pass."""
    prefetch(rows[0] + offset)
    prefetch(rows[1] + offset)
    prefetch(rows[2] + offset)
    prefetch(rows[3] + offset)
    prefetch(rows[4] + offset)
    prefetch(rows[5] + offset)
    prefetch(rows[6] + offset)
    prefetch(rows[7] + offset)


@njit(nogil=True)
@no_type_check
def swept(tag, rows, c, total, low, high, wanted, offset):
    """total_o += Σ_k c_k rows_ko for low <= o < high, asking for `wanted` + offset as it goes."""
    size = width(tag)
    line = 64 // size
    for first in range(low, high - 15, line):
        ahead(wanted, offset + size * (first - low))
        for o in range(first, min(first + line, high - 15), 16):
            sums = wide(F4, total + 4 * o)
            narrow(F4, total + 4 * o, chain(c, read_rows(tag, rows, size * o), sums))


@njit(nogil=True)
@no_type_check
def summed(tag, values, row_bytes, channels, x, first, last, total, low, high):
    """total_o += Σ_k x_k values[channel_k, o], first <= k < last, low <= o < high, of one row.

    first and low: multiples of PASS and of 16. Asked for ahead of time: what lies AHEAD bytes
    further in the same rows, and near their ends the beginnings of the next rows, which the
    processor cannot guess; of rows much shorter than that, those of a later pass.
    """
    size = width(tag)
    middle = max(low, low + (high - low - AHEAD // size) // 64 * 64)
    later = PASS * max(1, AHEAD // max(1, size * (high - low)))
    for k in range(first, last, PASS):
        rows = rows_at(values, row_bytes, channels + 4 * k)
        after = rows_at(values, row_bytes, channels + 4 * max(0, min(k + later, last - PASS)))
        c = weights_at(x + 4 * k)
        swept(tag, rows, c, total, low, middle, rows, size * low + AHEAD)
        swept(tag, rows, c, total, middle, high, after, size * low)
        tail = (high - low) % 16
        if tail:
            o = high - tail
            read = read_rows_tail(tag, rows, size * o, tail)
            narrow(F4, total + 4 * o, chain(c, read, wide(F4, total + 4 * o)))


@njit(nogil=True)
@no_type_check
def summed_batch(tag, values, row_bytes, channels, x, first, last, total, low, high, batch, lx, lt):
    """The same for every row of the batch, whose lists and sums lie lx and lt floats apart."""
    size = width(tag)
    for k in range(first, last, PASS):
        rows = rows_at(values, row_bytes, channels + 4 * k)
        for o in range(low, high, 16):
            tail = high - o
            if tail >= 16:
                read = read_rows(tag, rows, size * o)
            else:
                read = read_rows_tail(tag, rows, size * o, tail)
            for b in range(batch):
                c = weights_at(x + 4 * (b * lx + k))
                at = total + 4 * (b * lt + o)
                narrow(F4, at, chain(c, read, wide(F4, at)))


@njit(nogil=True)
@no_type_check
def summed_rows(tag, values, row_bytes, channels, x, first, last, total, low, high, batch, lx, lt):
    """`summed` or `summed_batch`."""
    if batch == 1:
        summed(tag, values, row_bytes, channels, x, first, last, total, low, high)
    else:
        summed_batch(
            tag, values, row_bytes, channels, x, first, last, total, low, high, batch, lx, lt
        )


@njit(nogil=True)
@no_type_check
def cleared(total, low, high, batch, lt):
    """Zeros, in whole vectors; low: a multiple of 16."""
    for b in range(batch):
        for o in range(low, high, 16):
            narrow(F4, total + 4 * (b * lt + o), splat(F4(0)))
