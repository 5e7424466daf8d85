"""eˣ = 2ⁿ·eʳ in compiled code: n = round(x·log₂e), r = x − n·ln 2, a polynomial for eʳ.

Additions and multiplications only, so that the compiler makes vector instructions of the loop that
it stands in.
"""

from typing import no_type_check

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from ctr_kernels.cached import cached

# eʳ to 2e-9, relative, where |r| ≤ ln 2 / 2: below the rounding of float32.
_POWERS = tuple(
    np.float32(c)
    for c in Chebyshev.interpolate(np.exp, 6, [-0.35, 0.35]).convert(kind=Polynomial).coef
)
_LOG2E = np.float32(np.log2(np.e))
# ln 2 in two parts: n times the first, of 15 bits, is exact, and so is what it leaves of x.
_LN2 = np.float32(np.round(np.log(2) * 2**15) / 2**15)
_LN2_REST = np.float32(np.log(2) - np.float64(_LN2))


# Not reordered: the two parts of ln 2 have to stay apart.
@cached(fastmath={"contract"})
@no_type_check
def power(x):
    """(eʳ − 1, 2ⁿ) of eˣ = 2ⁿ·eʳ, |x| ≤ 87; NaN stays NaN."""
    n = np.rint(x * _LOG2E)
    r = (x - n * _LN2) - n * _LN2_REST
    p = _POWERS[6]
    p = p * r + _POWERS[5]
    p = p * r + _POWERS[4]
    p = p * r + _POWERS[3]
    p = p * r + _POWERS[2]
    p = p * r + _POWERS[1]
    return p * r, np.int32((np.int32(n) + 127) << 23).view(np.float32)
