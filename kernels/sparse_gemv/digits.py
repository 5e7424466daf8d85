"""Inputs as integers: a panel of channels shares a power of two and is written in signed bytes.

x_j = f Σ_d 256^d digit_dj exactly, where the exponents of a panel differ by at most SPREAD: so
products with codes and their sums over a panel are exact too (|Σ| < 2²⁴), and neither the order
of the channels nor those that are left out can be seen in them.
"""

from typing import no_type_check

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from ctr_kernels.sparse_gemv.frame import FRAME
from ctr_kernels.sparse_gemv.vector import I64

SPREAD = 6
"""Binades between the largest and the smallest magnitude of a panel."""
STEP = 128
"""Channels that a panel is taken from at most."""
CLASSES = 4
"""Panels that a block of channels is split into at most, by magnitude, a row of the batch."""
LARGEST = 227
"""Exponent field of 2¹⁰⁰. Larger inputs, infinite ones and NaN go without digits."""
DIGITS = {"float32": 4, "int16": 3, "uint16": 2}
"""Signed bytes for a significand and SPREAD, by what lies in memory (see `vector`)."""
FRACTION = {"float32": 23, "int16": 10, "uint16": 7}
"""Bits of a significand behind the first."""

PANEL = np.dtype(
    [
        # its channels' place in the list of addresses, and how many: a multiple of 4
        *((name, np.int64) for name in ("first", "count", "row", "group")),
        # what integer sums begin with, a place; f; -Σ_j x_j where codes have zeros
        *(("start", np.int32, 4), ("factor", np.float32), ("shift", np.float32)),
    ],
    align=True,
)
CODES = np.dtype(
    [
        (name, np.int64)
        for name in (
            # scales and zeros by group and output; in `FRAME` those of four bits are `arranged`
            *("plain_scales", "plain_zeros"),
            # offsets in scratch, the floats of one row of the batch in `sums`, and those between
            # the outputs of low and of high halves of bytes
            *("addresses", "digits", "panels", "starts", "taken", "special"),
            *("sums", "sums_size", "gap"),
        )
    ]
    # Behind, not before: numba takes a record that begins as another does for one of those.
    + FRAME.descr
)
"""`FRAME`, and what the kernels of codes need besides."""


@intrinsic
@no_type_check
def places_of(context, inputs):
    """How many digits a number of that format takes."""
    count = DIGITS[inputs.instance_type.name]
    return types.int64(inputs), lambda *_: I64(count)


@intrinsic
@no_type_check
def fraction_of(context, inputs):
    """Bits of its significand behind the first."""
    count = FRACTION[inputs.instance_type.name]
    return types.int64(inputs), lambda *_: I64(count)


@intrinsic
@no_type_check
def halves_of(context, weights):
    """Codes in a byte."""
    count = 1 if weights.instance_type.name == "int8" else 2
    return types.int64(weights), lambda *_: I64(count)
