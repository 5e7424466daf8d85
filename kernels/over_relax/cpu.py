"""A row at a time while it is in a cache: Z, R, the threshold of |R| by counting, B.

bfloat16 is read and written as its 16 bits, which are the upper half of a float32's; rounding is
to the nearest, of two to the even one.
"""

from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ctr_kernels.cached import cached
from ctr_kernels.hard_threshold.search import MAGNITUDE, threshold
from ctr_kernels.op import Unsupported

Matrix = Float[Tensor, "d_out d_in"]


def over_relax(
    target: Matrix, low: Matrix, before: Matrix, keep: int, momentum: float, relaxation: float
) -> Matrix:
    """As `reference` defines it; A in float32, L and L₋ in float32 or bfloat16, in CPU memory."""
    if target.device.type != "cpu" or target.dtype != torch.float32:
        raise Unsupported("float32 on a CPU")
    if low.dtype not in (torch.float32, torch.bfloat16) or before.dtype != low.dtype:
        raise Unsupported("L and L₋ in float32 or bfloat16")
    if not 0 < keep < target.shape[1]:
        raise Unsupported("at least one entry of a row kept and one dropped")
    if before.stride(1) != 1:
        raise Unsupported("rows of L₋ in one piece each: B takes their place")
    # Nothing is allocated in compiled code: a test that poisons `np.empty` would break it.
    scratch = np.empty((2, target.shape[1]), np.float32)
    magnitudes = np.empty(target.shape[1], np.int32)
    step = _step if low.dtype == torch.float32 else _half_step
    step(
        target.detach().contiguous().numpy(),
        _bits(low.detach().contiguous()),
        _bits(before),
        keep,
        np.float32(momentum),
        np.float32(relaxation),
        scratch,
        magnitudes,
    )
    return before


def _bits(x: Matrix) -> np.ndarray:
    return x.numpy() if x.dtype == torch.float32 else x.view(torch.uint16).numpy()


@cached()
@no_type_check
def _step(target, low, before, keep, momentum, relaxation, scratch, magnitudes):
    above = 0
    for i in range(len(target)):
        for j in range(target.shape[1]):
            scratch[0, j] = low[i, j] + momentum * (low[i, j] - before[i, j])
        above = _row(target[i], keep, relaxation, scratch, magnitudes, above)
        before[i] = scratch[0]


@cached()
@no_type_check
def _half_step(target, low, before, keep, momentum, relaxation, scratch, magnitudes):
    above = 0
    ahead, residual = scratch[0], scratch[1]
    ahead_bits, residual_bits = ahead.view(np.uint32), residual.view(np.uint32)
    for i in range(len(target)):
        for j in range(target.shape[1]):
            ahead_bits[j] = np.uint32(low[i, j]) << np.uint32(16)
            residual_bits[j] = np.uint32(before[i, j]) << np.uint32(16)
        for j in range(target.shape[1]):
            ahead[j] += momentum * (ahead[j] - residual[j])
        above = _row(target[i], keep, relaxation, scratch, magnitudes, above)
        for j in range(target.shape[1]):
            b = ahead_bits[j]
            even = np.uint32(0x7FFF) + ((b >> np.uint32(16)) & np.uint32(1))
            before[i, j] = np.uint16((b + even) >> np.uint32(16))


@cached()
@no_type_check
def _row(target, keep, relaxation, scratch, magnitudes, guess):
    """scratch[0]: Z becomes B. The threshold is returned, the next row's guess."""
    ahead, residual = scratch[0], scratch[1]
    bits = residual.view(np.int32)
    for j in range(len(target)):
        residual[j] = target[j] - ahead[j]
    for j in range(len(target)):
        magnitudes[j] = bits[j] & MAGNITUDE
    above, ties = threshold(magnitudes, keep, guess)
    level = np.int32(above)
    if ties == 0:
        for j in range(len(target)):
            step = np.float32(0) if magnitudes[j] > level else relaxation * residual[j]
            ahead[j] += step
    else:
        for j in range(len(target)):
            tie = magnitudes[j] == level
            if not (magnitudes[j] > level or (tie and ties > 0)):
                ahead[j] += relaxation * residual[j]
            ties -= tie
    return above
