"""exp(score − max) of a block of scores in place, its row sums, and its column sums.

The exponential is eˣ = 2ⁿ·2ᶠ with n = round(x·log₂e) and a polynomial for 2ᶠ, |f| ≤ 1/2: adds and
multiplications only, so that the compiler makes vector instructions of the loop. Compiled
functions carry `no_type_check`: a shape checker's wrapper around them is nothing that numba can
compile.
"""

from typing import no_type_check

import numba
import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

# 2ᶠ to 2e-9, relative, on [−1/2, 1/2]: below the rounding of float32.
_POWERS = tuple(
    np.float32(c)
    for c in Chebyshev.interpolate(np.exp2, 6, [-0.5, 0.5]).convert(kind=Polynomial).coef
)
# log₂e in two parts: x·log₂e − n keeps its last bits where x is large.
_LOG2E = np.float32(np.log2(np.e))
_LOG2E_REST = np.float32(np.log2(np.e) - np.float64(_LOG2E))
_ONE, _ZERO, _TWO = np.float32(1), np.float32(0), np.float32(2)
# e^-87 is the least power above the denormal numbers: no sum that holds a 1 can tell it from 0.
_LEAST = np.float32(-87)
# Long before this tanh is 1 to the last bit.
_STEEP = np.float32(40)

_REORDERED = {"reassoc", "nsz", "contract"}


@numba.njit(inline="always")
@no_type_check
def _fraction(x):
    """(2ᶠ − 1, 2ⁿ) of eˣ = 2ⁿ·2ᶠ, |x| ≤ 87; NaN stays NaN."""
    n = np.rint(x * _LOG2E)
    f = (x * _LOG2E - n) + x * _LOG2E_REST
    p = _POWERS[6]
    p = p * f + _POWERS[5]
    p = p * f + _POWERS[4]
    p = p * f + _POWERS[3]
    p = p * f + _POWERS[2]
    p = p * f + _POWERS[1]
    return p * f, np.int32((np.int32(n) + 127) << 23).view(np.float32)


@numba.njit(cache=True, nogil=True, fastmath=_REORDERED)
@no_type_check
def _cap(row, cap):
    """c·tanh(x / c): tanh y = (e²ʸ − 1) / (e²ʸ + 1), e²ʸ − 1 without the loss of small y."""
    for k in range(row.shape[0]):
        x = _TWO * row[k] / cap
        x = _STEEP if x > _STEEP else x
        x = -_STEEP if x < -_STEEP else x
        rest, scale = _fraction(x)
        less_one = (scale - _ONE) + scale * rest
        row[k] = cap * less_one / (less_one + _TWO)


# A NaN may or may not be the maximum here; the exponentials of its row are NaN either way.
@numba.njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
@no_type_check
def _largest(row):
    largest = row[0]
    for k in range(row.shape[0]):
        largest = max(largest, row[k])
    return largest


@numba.njit(cache=True, nogil=True, fastmath=_REORDERED)
@no_type_check
def _exponentials(row, largest):
    total = _ZERO
    for k in range(row.shape[0]):
        x = row[k] - largest
        rest, scale = _fraction(_LEAST if x < _LEAST else x)
        weight = scale + scale * rest
        row[k] = weight
        total += weight
    return total


@numba.njit(cache=True, nogil=True)
@no_type_check
def weigh(tile, low, high, softcap, sink, lse, inverse, missing):
    """tile[r, k] becomes exp(logit − max of row r) between low and high, 0 elsewhere.

    Rows are heads × queries; low and high count from the tile's first key. softcap = 0 is none,
    sink = −inf is none. Fills lse[head, query], inverse[row] = 1 / Σ of the row (0 where nothing
    is seen) and adds to missing[head].
    """
    queries = low.shape[0]
    for r in range(tile.shape[0]):
        i, q = divmod(r, queries)
        row = tile[r]
        first, last = max(low[q], 0), min(high[q] + 1, row.shape[0])
        if first >= last:
            row[:] = _ZERO
            lse[i, q] = -np.inf
            inverse[r] = _ZERO
            continue
        row[:first] = _ZERO
        row[last:] = _ZERO
        seen = row[first:last]
        if softcap > 0:
            _cap(seen, softcap)
        largest = max(_largest(seen), sink[i])
        aside = np.exp(np.float64(sink[i] - largest))
        total = np.float64(_exponentials(seen, largest)) + aside
        lse[i, q] = largest + np.log(total)
        inverse[r] = 1 / total
        missing[i] += aside / total


@numba.njit(cache=True, nogil=True, fastmath=_REORDERED)
@no_type_check
def column_sums(tile, weight, received):
    """received[head, k] += Σ_r weight[r] tile[r, k] over the rows of that head.

    A block is summed in float32 and the blocks in float64: thousands of queries round no worse
    than one block.
    """
    heads, keys = received.shape
    queries = tile.shape[0] // heads
    column = np.empty(keys, np.float32)
    for i in range(heads):
        column[:] = _ZERO
        r, end = i * queries, (i + 1) * queries
        while r + 4 <= end:
            a, b, c, d = weight[r], weight[r + 1], weight[r + 2], weight[r + 3]
            for k in range(keys):
                column[k] += (a * tile[r, k] + b * tile[r + 1, k]) + (
                    c * tile[r + 2, k] + d * tile[r + 3, k]
                )
            r += 4
        while r < end:
            a = weight[r]
            for k in range(keys):
                column[k] += a * tile[r, k]
            r += 1
        for k in range(keys):
            received[i, k] += column[k]
