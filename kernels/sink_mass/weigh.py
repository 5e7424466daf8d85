"""exp(score − max) of a tile of scores in place, its row sums, and its column sums.

The exponential is `ctr_kernels.power`, of additions and multiplications only, so that the compiler
makes vector instructions of the loop. Compiled functions carry `no_type_check`: a shape checker's
wrapper around them is nothing that numba can compile.
"""

from typing import no_type_check

import numpy as np

from ctr_kernels.cached import cached
from ctr_kernels.power import power

_ONE, _ZERO, _TWO = np.float32(1), np.float32(0), np.float32(2)
# e^-87 is the least power above the denormal numbers: no sum that holds a 1 can tell it from 0.
_LEAST = np.float32(-87)
# Long before this tanh is 1 to the last bit.
_STEEP = np.float32(40)
_MAGNITUDE = np.int32(0x7FFFFFFF)

_REORDERED = {"reassoc", "nsz", "contract"}


@cached(fastmath=_REORDERED)
@no_type_check
def _cap(row, cap):
    """c·tanh(x / c): tanh y = (e²ʸ − 1) / (e²ʸ + 1), e²ʸ − 1 without the loss of small y."""
    for k in range(row.shape[0]):
        x = _TWO * row[k] / cap
        x = _STEEP if x > _STEEP else x
        x = -_STEEP if x < -_STEEP else x
        rest, scale = power(x)
        less_one = (scale - _ONE) + scale * rest
        row[k] = cap * less_one / (less_one + _TWO)


@cached()
@no_type_check
def _largest(row):
    """The maximum, as integers whose order is that of the floats: that loop is made of vectors."""
    bits = row.view(np.int32)
    largest = np.int32(-0x80000000)
    for k in range(bits.shape[0]):
        b = bits[k]
        ordered = np.int32(b ^ np.int32(np.int32(b >> 31) & _MAGNITUDE))
        largest = ordered if ordered > largest else largest
    return np.int32(largest ^ np.int32(np.int32(largest >> 31) & _MAGNITUDE)).view(np.float32)


@cached(fastmath=_REORDERED)
@no_type_check
def _exponentials(row, largest):
    total = _ZERO
    for k in range(row.shape[0]):
        x = row[k] - largest
        rest, scale = power(_LEAST if x < _LEAST else x)
        weight = scale + scale * rest
        row[k] = weight
        total += weight
    return total


@cached()
@no_type_check
def weigh(tile, low, high, softcap, peak, total, shrink):
    """tile[r, k] becomes exp(logit − peak[r]) between low and high, 0 elsewhere.

    Rows are heads × queries; low and high count from the tile's first key; softcap = 0 is none.
    peak[row] and total[row] hold the maximum and the sum of what came before this tile and are
    brought up to date; shrink[row] is what the weights before are to be multiplied with.
    """
    queries = low.shape[0]
    for r in range(tile.shape[0]):
        q = r % queries
        row = tile[r]
        first, last = max(low[q], 0), min(high[q] + 1, row.shape[0])
        shrink[r] = _ONE
        if first >= last:
            row[:] = _ZERO
            continue
        row[:first] = _ZERO
        row[last:] = _ZERO
        seen = row[first:last]
        if softcap > 0:
            _cap(seen, softcap)
        before = peak[r]
        peak[r] = max(_largest(seen), before)
        shrink[r] = np.exp(before - peak[r])
        total[r] = total[r] * shrink[r] + _exponentials(seen, peak[r])


@cached()
@no_type_check
def settle(low, high, peak, total, peaks, lse, inverse):
    """lse[row] and inverse[row] = 1 / Σ; peaks[tile, row] becomes the factor of the tile's row.

    A tile holds exp(logit − peak then); the pattern is exp(logit − peak) / Σ. A query that sees
    nothing has lse −inf and factors 0.
    """
    for r in range(peak.shape[0]):
        q = r % low.shape[0]
        if low[q] > high[q]:
            lse[r] = -np.inf
            inverse[r] = _ZERO
            peaks[:, r] = _ZERO
            continue
        lse[r] = peak[r] + np.log(np.float64(total[r]))
        inverse[r] = _ONE / total[r]
        for c in range(peaks.shape[0]):
            peaks[c, r] = np.exp(peaks[c, r] - peak[r]) * inverse[r]


@cached(fastmath=_REORDERED)
@no_type_check
def column_sums(tile, weight, received, scratch):
    """received[head, k] += Σ_r weight[r] tile[r, k] over the rows of that head.

    A tile is summed in float32, in `scratch`, and the tiles in float64: thousands of queries
    round no worse than one tile.
    """
    heads, keys = received.shape
    queries = tile.shape[0] // heads
    column = scratch[:keys]
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
