"""The threshold that leaves k entries of a row, by counting: no sort, no histogram.

The order of non-negative floats is the order of their bits, so a threshold is an integer, and
how many bits exceed it falls as it rises. A bracket is put around the answer from the threshold
of the row before and closed by interpolation; every fourth step halves it, which bounds the
counts (near 8 on weights). A count compares as many entries at once as a vector register holds;
radix select, which writes a histogram one entry at a time, takes several times longer. Compiled
functions carry `no_type_check`: a shape checker's wrapper around them is nothing that numba can
compile.
"""

from typing import no_type_check

import numpy as np

from ctr_kernels.cached import cached

INFINITE = 0x7F800000
"""Bits of infinity: no magnitude exceeds them."""
MAGNITUDE = np.int32(0x7FFFFFFF)
"""All bits but the sign."""


@cached()
@no_type_check
def threshold(magnitudes, keep, guess):
    """(t, ties): the `keep` largest are all entries above t and the first `ties` equal to t.

    `magnitudes` are the bits of |x|, none of them NaN; 0 < keep < their number.
    """
    # more than `keep` entries exceed `low`, at most `keep` exceed `high`
    low, high = -1, INFINITE
    above_low, above_high = len(magnitudes), 0
    step, counts = 1 << 21, 0
    candidate = guess
    while high - low > 1:
        if candidate <= low or candidate >= high:
            candidate = (low + high) // 2
        above = _above(magnitudes, np.int32(candidate))
        counts += 1
        if above == keep:
            return candidate, 0
        if above > keep:
            low, above_low = candidate, above
        else:
            high, above_high = candidate, above
        if low < 0:
            candidate, step = high - step, 4 * step
        elif high == INFINITE:
            candidate, step = low + step, 4 * step
        elif counts % 4 == 3:
            candidate = (low + high) // 2
        else:
            share = (above_low - keep) / (above_low - above_high)
            candidate = low + int((high - low) * share)
    return high, keep - above_high


@cached()
@no_type_check
def _above(magnitudes, candidate):
    count = np.int32(0)
    for j in range(len(magnitudes)):
        count += np.int32(magnitudes[j] > candidate)
    return np.int64(count)
