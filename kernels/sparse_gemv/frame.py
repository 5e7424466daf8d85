"""Where a prepared call's numbers lie: one record of addresses and sizes, one block of scratch.

Compiled code gets the two addresses and reads what it needs; nothing is looked up, converted or
allocated per call. Scratch belongs to a Python thread and is shared by all calls in it, so that
it stays in the caches; it grows with the largest call.
"""

import threading

import numpy as np
import torch

WIDEST = 8
"""Rows of a batch at most."""
PASS = 8
"""Rows of W that are added at a time; lists of channels are padded to a multiple."""

FRAME = np.dtype(
    [
        (name, np.int64)
        for name in (
            # addresses, and the bytes from one row to the next
            *("values", "row_bytes", "threshold", "bias"),
            *("down", "down_bytes", "up", "up_bytes", "order"),
            *("scales", "zeros"),
            # sizes; `parts` is the number of threads, which share channels or outputs
            *("d_in", "d_out", "rank", "group", "parts", "by_rows"),
            # offsets in scratch; floats from one row of the batch to the next; bytes in all
            *("kept", "kept_x", "rest", "rest_x", "list_size"),
            *("total", "total_size", "small", "small_size", "scratch"),
        )
    ]
)


def layout(frame: np.ndarray, extra: int = 0) -> None:
    """Fill in the offsets for the sizes: lists and sums of the widest batch, one sum a thread."""
    f = frame[0]
    # Vectors of 16 are written whole behind the last entry, then PASS entries of padding.
    f["list_size"] = -(-int(f["d_in"]) // 16) * 16 + 32
    f["total_size"] = -(-int(f["d_out"]) // 16) * 16
    f["small_size"] = -(-int(f["rank"]) // 16) * 16
    end = 0
    for name, floats in (
        ("kept", f["list_size"]),
        ("kept_x", WIDEST * f["list_size"]),
        ("rest", f["list_size"]),
        ("rest_x", WIDEST * f["list_size"]),
        ("total", f["parts"] * WIDEST * f["total_size"]),
        ("small", f["parts"] * WIDEST * f["small_size"]),
        ("scratch", extra),
    ):
        f[name] = end
        end += -(-4 * int(floats) // 64) * 64
    f["scratch"] = end


class Scratch(threading.local):
    """A thread's work memory, aligned to a cache line."""

    def __init__(self):
        self.size = 0
        self.address = 0
        self._memory = torch.zeros(0, dtype=torch.uint8)

    def grow(self, size: int) -> int:
        """The address of at least `size` bytes; what lay there before may be gone."""
        if size > self.size:
            self._memory = torch.zeros(size + 64, dtype=torch.uint8)
            self.address = -(-self._memory.data_ptr() // 64) * 64
            self.size = size
        return self.address


SCRATCH = Scratch()
