"""Rows of floats: channels are listed, their rows added, the remainder sent through the factors.

Threads share the outputs; where rows are short they share the channels instead, each with sums of
its own, so that whole rows are read. Nobody waits for anybody: A B x is linear in the remainder,
so a thread sends its own share of it through both factors.
"""

from typing import no_type_check

import torch
from numba import njit, prange
from numba.np.numpy_support import carray

from ctr_kernels.cached import cached
from ctr_kernels.op import Unsupported
from ctr_kernels.sparse_gemv.bound import TAGS, bind, factor_tag
from ctr_kernels.sparse_gemv.cpu_parts import F4, cleared, loaded, split, stored, summed_rows
from ctr_kernels.sparse_gemv.frame import FRAME, PASS
from ctr_kernels.sparse_gemv.prepared import Run, Weights
from ctr_kernels.sparse_gemv.vector import plus, pointer, wide, width


@njit(nogil=True)
@no_type_check
def share(n, part, parts, step):
    """First and last of an equal share of n, in whole steps."""
    each = (n + parts * step - 1) // (parts * step) * step
    return min(n, part * each), min(n, (part + 1) * each)


@njit(nogil=True)
@no_type_check
def through_factors(f, kind, scratch, part, first, last, total, low, high, batch):
    """total += A B x of the remainder's channels first..last."""
    small = scratch + f.small + 4 * part * batch * f.small_size
    cleared(small, 0, f.small_size, batch, f.small_size)
    summed_rows(
        kind, f.down, f.down_bytes, scratch + f.rest, scratch + f.rest_x, first, last,
        small, 0, f.rank, batch, f.list_size, f.small_size,
    )  # fmt: skip
    summed_rows(
        kind, f.up, f.up_bytes, f.order, small, 0, (f.rank + PASS - 1) // PASS * PASS,
        total, low, high, batch, f.small_size, f.total_size,
    )  # fmt: skip


@njit(nogil=True)
@no_type_check
def work(f, weights, factors, scratch, part, n_kept, n_rest, batch):
    """The sums of one thread."""
    total = scratch + f.total
    low, high = 0, f.d_out
    first, last, first_rest, last_rest = 0, n_kept, 0, n_rest
    if f.by_rows:
        total += 4 * part * batch * f.total_size
        first, last = share(n_kept, part, f.parts, PASS)
        first_rest, last_rest = share(n_rest, part, f.parts, PASS)
    else:
        low, high = share(f.d_out, part, f.parts, 64)
    cleared(total, low, high, batch, f.total_size)
    summed_rows(
        weights, f.values, f.row_bytes, scratch + f.kept, scratch + f.kept_x, first, last,
        total, low, high, batch, f.list_size, f.total_size,
    )  # fmt: skip
    if f.rank:
        through_factors(f, factors, scratch, part, first_rest, last_rest, total, low, high, batch)


@njit(nogil=True)
@no_type_check
def finish(f, kind, scratch, y, low, high, batch):
    """The sums of all threads and the bias, rounded once."""
    sums = f.parts if f.by_rows else 1
    for b in range(batch):
        for o in range(low, high, 16):
            n = high - o
            x = wide(F4, scratch + f.total + 4 * (b * f.total_size + o))
            for part in range(1, sums):
                x = plus(
                    x, wide(F4, scratch + f.total + 4 * ((part * batch + b) * f.total_size + o))
                )
            if f.bias:
                x = plus(x, loaded(F4, f.bias + 4 * o, n))
            stored(kind, y + width(kind) * (b * f.d_out + o), x, n)


@njit(nogil=True)
@no_type_check
def listed(f, kind, x, scratch, batch):
    """`split` into scratch."""
    rest = scratch + f.rest if f.rank else 0
    return split(
        kind, x, f.threshold, f.d_in, batch, scratch + f.kept, scratch + f.kept_x,
        rest, scratch + f.rest_x, f.list_size,
    )  # fmt: skip


@cached()
@no_type_check
def alone(x, y, batch, frame, scratch, inputs, weights, factors):
    """y of x on one thread; the last three say what lies in memory."""
    f = carray(pointer(frame), 1, FRAME)[0]
    n_kept, n_rest = listed(f, inputs, x, scratch, batch)
    work(f, weights, factors, scratch, 0, n_kept, n_rest, batch)
    finish(f, inputs, scratch, y, 0, f.d_out, batch)


@njit(nogil=True)
@no_type_check
def worker(y, batch, frame, scratch, part, n_kept, n_rest, inputs, weights, factors):
    """One thread's sums, finished where they are nobody else's too."""
    f = carray(pointer(frame), 1, FRAME)[0]
    work(f, weights, factors, scratch, part, n_kept, n_rest, batch)
    if not f.by_rows:
        low, high = share(f.d_out, part, f.parts, 64)
        finish(f, inputs, scratch, y, low, high, batch)


@njit(nogil=True)
@no_type_check
def before(x, batch, frame, scratch, inputs):
    """The lists, made by one thread."""
    f = carray(pointer(frame), 1, FRAME)[0]
    n_kept, n_rest = listed(f, inputs, x, scratch, batch)
    return n_kept, n_rest, f.parts


@njit(nogil=True)
@no_type_check
def after(y, batch, frame, scratch, inputs):
    """Sums of all threads become one."""
    f = carray(pointer(frame), 1, FRAME)[0]
    if f.by_rows:
        finish(f, inputs, scratch, y, 0, f.d_out, batch)


@cached(parallel=True)
@no_type_check
def together(x, y, batch, frame, scratch, inputs, weights, factors):
    """The same on as many threads as there are parts."""
    n_kept, n_rest, parts = before(x, batch, frame, scratch, inputs)
    for part in prange(parts):
        worker(y, batch, frame, scratch, part, n_kept, n_rest, inputs, weights, factors)
    after(y, batch, frame, scratch, inputs)


def bound(weights: Weights, x_dtype: torch.dtype, threads: int) -> Run:
    """The call for rows of float32, bfloat16 or float16."""
    kind = weights.rows.values.dtype
    if kind not in TAGS:
        raise Unsupported(f"rows of float32, bfloat16 or float16, not {kind}")
    tags = (TAGS.get(x_dtype, float), TAGS[kind], factor_tag(weights, TAGS[kind]))
    return bind(weights, x_dtype, threads, alone, together, tags)
