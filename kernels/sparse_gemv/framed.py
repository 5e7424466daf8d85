"""Prepared products for compiled code that calls them itself: frames instead of Python calls."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ctr_kernels.sparse_gemv import cpu_codes
from ctr_kernels.sparse_gemv.bound import TAGS, factor_tag, frame_of
from ctr_kernels.sparse_gemv.frame import SCRATCH
from ctr_kernels.sparse_gemv.prepared import Prepared


class Framed(NamedTuple):
    """Addresses of frames, and the tags that compiled code is called with, all alike.

    `size`: bytes of scratch that the largest needs. `held` keeps alive what addresses point to.
    """

    addresses: np.ndarray
    tags: tuple[type, type, type]
    size: int
    held: list[np.ndarray | Tensor]

    def scratch(self) -> int:
        """Work memory of this Python thread."""
        return SCRATCH.address if SCRATCH.size >= self.size else SCRATCH.grow(self.size)


def framed(products: Sequence[Prepared]) -> Framed | None:
    """The frames of products on one thread; None where formats differ or no CPU kernel is bound."""
    frames, held, tags = [], [], set()
    for one in products:
        weights = one.weights
        if one.backend != "cpu" or one.threads != 1 or one.x_dtype not in TAGS:
            return None
        frame, tensors = frame_of(weights, 1)
        kind = cpu_codes.CODE_TAGS.get(weights.rows.values.dtype)
        if kind is None:
            kind = TAGS[weights.rows.values.dtype]
        else:
            frame, more = cpu_codes.fitted(frame, weights.rows)
            tensors = tensors + more
        frames.append(frame)
        held += [frame, *tensors]
        factors = None if weights.up is None else factor_tag(weights, np.float32)
        tags.add((TAGS[one.x_dtype], kind, factors))
    # Where there are no factors their format does not matter.
    whole = {(x, kind) for x, kind, _ in tags}
    stored = {factors for *_, factors in tags if factors is not None}
    if len(whole) != 1 or len(stored) > 1:
        return None
    x, kind = whole.pop()
    addresses = np.array([frame.ctypes.data for frame in frames], np.int64)
    size = max(int(frame[0]["scratch"]) for frame in frames)
    return Framed(addresses, (x, kind, stored.pop() if stored else np.float32), size, held)
