"""The least time for a scan's attention: its operations at the rates that this processor has."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from mech.trace import Heads

# A tile of scores, as the kernel has it: enough rows for a full rate, small enough for a cache.
ROWS, COLUMNS = 128, 1024
ROUNDS = 25


class Floor(NamedTuple):
    """CPU seconds of what cannot be left out: two products, one exponential, one sum an entry."""

    products: float
    exponentials: float
    sums: float

    @property
    def total(self) -> float:
        """All three; a processor does not overlap them on one thread."""
        return self.products + self.exponentials + self.sums


def floor(heads: Heads, layers: int) -> Floor:
    """Σ over the seen entries of 2 d_key + 2 d_head flops, one exp, one addition, over the rates.

    The rates are measured here and now, each in its cache-resident best of several rounds.
    """
    entries = layers * heads.query.shape[1] * int((heads.high - heads.low + 1).clip(min=0).sum())
    d_key, d_head = heads.query.shape[3], heads.value.shape[3]
    query, key = torch.randn(ROWS, d_key), torch.randn(COLUMNS, d_key)
    value, tile = torch.randn(COLUMNS, d_head), torch.randn(ROWS, COLUMNS)
    out, z, sums = torch.zeros_like(tile), torch.zeros(ROWS, d_head), torch.zeros(COLUMNS)
    once = ROWS * COLUMNS
    products = _least(lambda: (torch.mm(query, key.T, out=out), torch.mm(tile, value, out=z)))
    exponentials = _least(lambda: torch.exp(tile, out=out))
    added = _least(lambda: torch.sum(tile, dim=0, out=sums))
    return Floor(*(seconds * entries / once for seconds in (products, exponentials, added)))


def _least(work: Callable[[], object]) -> float:
    work()
    found = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(4):
            work()
        found.append((time.process_time() - started) / 4)
    return min(found)
