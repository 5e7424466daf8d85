"""One thread or several: measured, because on a shared machine several can be slower than one."""

import time
from collections.abc import Sequence

import torch

from ctr_kernels.sparse_gemv.prepared import Prepared

GAIN = 1.1
"""Several threads must be this much faster: while one waits for a core all the others wait."""


def choose(products: Sequence[Prepared], threads: int | None = None, rounds: int = 7) -> int:
    """`threads` (None: torch's number) where these products run faster on them than on one, else 1.

    The products take turns on one thread and on several, one after the other as in a model, so
    that their weights come from memory; the median of the rounds' ratios decides. Give products
    that do not fit the caches together. Those of the definition have no threads to choose: 1.
    """
    every = torch.get_num_threads() if threads is None else threads
    bound = [p for p in products if p.backend == "cpu"]
    if every == 1 or not bound:
        return 1
    few, many = ([Prepared(p.weights, p.x_dtype, n) for p in bound] for n in (1, every))
    for products in (few, many):
        _seconds(products)  # starts the threads
    ratios = sorted(_seconds(few) / _seconds(many) for _ in range(rounds))
    return every if ratios[rounds // 2] > GAIN else 1


def _seconds(products: Sequence[Prepared]) -> float:
    generator = torch.Generator().manual_seed(0)
    inputs = {
        (d_in, dtype): torch.randn(1, d_in, generator=generator).to(dtype)
        for d_in, dtype in {(p.weights.rows.d_in, p.x_dtype) for p in products}
    }
    started = time.perf_counter()
    for p in products:
        p(inputs[p.weights.rows.d_in, p.x_dtype])
    return time.perf_counter() - started
