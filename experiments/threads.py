"""How many threads to compute with: measured, because on shared cores fewer can be faster."""

import os
import time

import torch

from experiments.progress import Progress

ROUNDS = 7
GAIN = 1.25  # more threads must be this much faster, or the risk of a busy machine is not worth it


def settle(progress: Progress) -> int:
    """Set torch's threads to one or to all, whichever is faster here and now; returns the number.

    A thread that waits for a core holds up all the others at every matrix product: on a shared
    machine two threads can be several times slower than one. OMP_NUM_THREADS overrules.
    """
    every = torch.get_num_threads()
    if every == 1 or "OMP_NUM_THREADS" in os.environ:
        return every
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 576, generator=generator)
    weight = torch.randn(1536, 576, generator=generator)
    _seconds(1, x, weight)  # the first products also start the library
    ratios = sorted(_seconds(1, x, weight) / _seconds(every, x, weight) for _ in range(ROUNDS))
    chosen = every if ratios[ROUNDS // 2] > GAIN else 1
    torch.set_num_threads(chosen)
    progress.say(
        f"threads: {chosen} ({every} threads are {ratios[ROUNDS // 2]:.2f} times as fast as one)"
    )
    return chosen


def _seconds(threads: int, x: torch.Tensor, weight: torch.Tensor) -> float:
    torch.set_num_threads(threads)
    started = time.perf_counter()
    for _ in range(40):
        x = torch.relu(x @ weight.mT) @ weight
        x = x / x.norm()  # the same size again and again
    return time.perf_counter() - started
