"""Arrays as text inside a page, and how exact they come back.

A share of attention p is one 16-bit code: 0 for what is below 2⁻¹⁶, else 65535 + 4096 log₂ p
rounded, so p = 2^((code − 65535) / 4096) to a relative error of 2^(1 / 8192) − 1 = 8.5e-5.
Everything else is float32, or 8 bits for what is only looked at. Little-endian, base64.
"""

import base64
from typing import TypedDict

import numpy as np
from jaxtyping import Float, Shaped, UInt16

OCTAVE = 4096
"""Codes from p to 2p."""
TOP = 65535
"""The code of p = 1."""
ERROR = 2 ** (0.5 / OCTAVE) - 1
"""Relative error of a share that is not coded as 0."""
LEAST = 2 ** (-(TOP - 0.5) / OCTAVE)
"""Shares below this are coded as 0."""


class Packed(TypedDict):
    """An array as the page reads it."""

    dtype: str
    shape: list[int]
    data: str


def shares(p: Float[np.ndarray, "..."]) -> UInt16[np.ndarray, "..."]:
    """The codes of shares of attention in [0, 1]; rounding beyond 1 is 1."""
    with np.errstate(divide="ignore"):
        code = np.rint(TOP + OCTAVE * np.log2(p))
    return np.clip(code, 0, TOP).astype(np.uint16)


def triangle(pattern: Float[np.ndarray, "*axes query key"]) -> UInt16[np.ndarray, "*axes entry"]:
    """Codes of the keys that a causal query can see: row q holds keys 0 to q."""
    queries, keys = np.tril_indices(pattern.shape[-1])
    return shares(pattern[..., queries, keys])


def packed(array: Shaped[np.ndarray, "..."]) -> Packed:
    """float32, 32-bit integers, bytes or 16-bit codes, as base64 text with shape and type."""
    if array.dtype.kind == "f":
        array = array.astype("<f4")
    elif array.dtype.kind in "bi":
        array = array.astype("u1" if array.dtype.kind == "b" else "<i4")
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": array.dtype.str.lstrip("<|"), "shape": list(array.shape), "data": data}
