"""Tensors become a frame of addresses, a compiled function a call with nothing left to check."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import typeof
from numba.core import types
from torch import Tensor

from ctr_kernels.op import Unsupported
from ctr_kernels.sparse_gemv.frame import FRAME, PASS, SCRATCH, layout
from ctr_kernels.sparse_gemv.prepared import Run, Weights
from ctr_kernels.sparse_gemv.rows import Rows

TAGS = {torch.float32: np.float32, torch.bfloat16: np.uint16, torch.float16: np.int16}
"""What lies in memory, as `vector` wants to be told."""
SHORT = 2048
"""Bytes: of shorter rows threads do not share out the outputs but the channels."""
Fitted = Callable[[np.ndarray, Rows], tuple[np.ndarray, list[Tensor]]]
"""The frame as a kernel wants it, and the tensors that it added."""
WIDEST_LAYER = 2**31 - 64
"""Channels are listed in 32 bits."""


def bind(
    weights: Weights,
    x_dtype: torch.dtype,
    threads: int,
    alone: Any,
    together: Any,
    tags: tuple[type, ...],
    fitted: Fitted | None = None,
) -> Run:
    """`alone` or `together`, numba functions of (x, y, batch, frame, scratch, *tags), as a `Run`.

    Raises Unsupported for what compiled code does not know.
    """
    if weights.rows.device.type != "cpu":
        raise Unsupported("rows in CPU memory")
    if x_dtype not in TAGS:
        raise Unsupported(f"inputs in float32, bfloat16 or float16, not {x_dtype}")
    if max(weights.rows.d_in, weights.rows.d_out) > WIDEST_LAYER:
        raise Unsupported(f"at most {WIDEST_LAYER} channels")
    frame, held = frame_of(weights, threads)
    if fitted is not None:
        frame, more = fitted(frame, weights.rows)
        held += more
    function = alone if threads == 1 else together
    numbers = (types.int64,) * 5
    signature = (*numbers, *(typeof(t) for t in tags))
    # numba, when it first starts its threads, gives torch as many.
    of_torch = torch.get_num_threads()
    function.compile(signature)
    torch.set_num_threads(of_torch)
    call = function.overloads[signature].entry_point
    address, size = frame.ctypes.data, int(frame[0]["scratch"])
    scratch = SCRATCH

    def run(x: Tensor, y: Tensor, batch: int, held=(frame, held)) -> None:
        work = scratch.address if scratch.size >= size else scratch.grow(size)
        call(x.data_ptr(), y.data_ptr(), batch, address, work, *tags)

    return run


def factor_tag(weights: Weights, otherwise: type) -> type:
    """How the factors are stored; `otherwise` where there are none."""
    return otherwise if weights.up is None else TAGS.get(weights.up.dtype, np.float32)


def frame_of(weights: Weights, threads: int) -> tuple[np.ndarray, list[Tensor]]:
    """The frame, and the tensors that its addresses point into."""
    rows = weights.rows
    held = {"values": rows.values, "threshold": weights.threshold.float().contiguous()}
    for name in ("scales", "zeros"):
        grid = getattr(rows, name)
        if grid is not None:
            held[name] = grid.contiguous()
    if weights.bias is not None:
        held["bias"] = weights.bias.detach().float().contiguous()
    frame = np.zeros(1, FRAME)
    f = frame[0]
    if weights.down is not None and weights.up is not None and len(weights.up):
        stored = weights.up.dtype if weights.up.dtype in TAGS else torch.float32
        rank = len(weights.up)
        held["down"] = weights.down.detach().to(stored).contiguous()
        held["up"] = weights.up.detach().to(stored).contiguous()
        held["order"] = torch.arange(rank + PASS, dtype=torch.int32).clamp_max(rank - 1)
        f["rank"] = rank
        f["down_bytes"] = rank * held["down"].element_size()
        f["up_bytes"] = rows.d_out * held["up"].element_size()
    for name, tensor in held.items():
        f[name] = tensor.data_ptr()
    f["row_bytes"], f["group"] = rows.row_bytes, rows.group
    f["d_in"], f["d_out"] = rows.d_in, rows.d_out
    f["parts"], f["by_rows"] = threads, threads > 1 and rows.row_bytes < SHORT
    layout(frame)
    return frame, list(held.values())
