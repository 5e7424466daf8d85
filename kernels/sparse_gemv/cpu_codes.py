"""Rows of int8 and of four-bit codes: integer sums of panels, in float32 from panel to panel.

What is read costs little to compute: one instruction multiplies 64 codes. The integer sums are
exact, so a row of the batch has the same bits whatever the others hold. Inputs that digits do not
hold (NaN, infinite, beyond 2¹⁰⁰, or of more than 26 binades within one block) and processors
without the instruction go by `plain`: the definition, channel by channel.
"""

from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float
from numba import njit, prange
from numba.np.numpy_support import carray
from torch import Tensor

from ctr_kernels.cached import cached
from ctr_kernels.sparse_gemv.bound import TAGS, bind, factor_tag
from ctr_kernels.sparse_gemv.cpu_float import finish, listed, share
from ctr_kernels.sparse_gemv.cpu_parts import F4, cleared, summed_rows
from ctr_kernels.sparse_gemv.digits import (
    CLASSES,
    CODES,
    PANEL,
    STEP,
    halves_of,
    places_of,
)
from ctr_kernels.sparse_gemv.dots import NATIVE, TILE, dots
from ctr_kernels.sparse_gemv.frame import FRAME, PASS, WIDEST
from ctr_kernels.sparse_gemv.panels import panelled
from ctr_kernels.sparse_gemv.prepared import Run, Weights
from ctr_kernels.sparse_gemv.rows import Rows
from ctr_kernels.sparse_gemv.vector import pointer

AHEAD = 4 * TILE
"""Bytes between a prefetch and its use."""
PANEL_BYTES = PANEL.itemsize
CODE_TAGS = {torch.int8: np.int8, torch.uint8: np.uint8}


def bound(weights: Weights, x_dtype: torch.dtype, threads: int) -> Run:
    """The call of these weights. Raises Unsupported for what compiled code does not know."""
    tags = (
        TAGS.get(x_dtype, np.float32),
        CODE_TAGS[weights.rows.values.dtype],
        factor_tag(weights, np.float32),
    )
    return bind(weights, x_dtype, threads, alone, together, tags, fitted)


def fitted(frame: np.ndarray, rows: Rows) -> tuple[np.ndarray, list[Tensor]]:
    """The frame with room for panels, and scales where compiled code wants them."""
    assert rows.scales is not None
    wide = np.zeros(1, CODES)
    f, old = wide[0], frame[0]
    for name in FRAME.names or ():
        f[name] = old[name]
    held = []
    f["by_rows"], f["plain_scales"], f["plain_zeros"] = 0, f["scales"], f["zeros"]
    group = rows.group or max(rows.d_in, 1)
    f["group"] = group
    tiles = -(-rows.row_bytes // TILE)
    if rows.values.dtype == torch.uint8:
        held = [arranged(g, rows.row_bytes) for g in (rows.scales, rows.zeros) if g is not None]
        # Without zeros they are multiplied by 0, and anything finite will do.
        f["scales"], f["zeros"] = held[0].data_ptr(), held[-1].data_ptr()
        tiles *= 2
    blocks = -(-rows.d_in // group) * -(-group // STEP)
    slots = WIDEST * (rows.d_in + 3 * CLASSES * blocks)
    f["sums_size"] = f["total_size"] = tiles * TILE
    f["gap"] = -rows.row_bytes % TILE
    end = int(old["scratch"])
    for name, size in (
        ("addresses", 8 * slots),
        ("digits", 4 * slots),
        ("panels", PANEL.itemsize * WIDEST * CLASSES * blocks),
        ("starts", 8 * (rows.d_in + 1)),
        ("taken", 20 * STEP),
        ("special", 8 * WIDEST),
        *((name, 4 * WIDEST * int(f["sums_size"])) for name in ("sums", "total")),
    ):
        f[name] = end
        end += -(-size // 64) * 64
    f["scratch"] = end
    return wide, held


def arranged(grid: Float[Tensor, "groups d_out"], width: int) -> Float[Tensor, "groups floats"]:
    """Scales or zeros of four-bit codes in the order of the sums: tile, half of the byte, k, l, i.

    `width`: bytes of a row. What lies behind the last output is 0.
    """
    tiles = -(-width // TILE)
    halves = torch.zeros(len(grid), 2, tiles * TILE)
    halves[:, 0, :width] = grid[:, :width]
    halves[:, 1, : grid.shape[1] - width] = grid[:, width:]
    split = halves.view(len(grid), 2, tiles, 4, 4, 4)  # half, tile, l, k, i
    return split.permute(0, 2, 1, 4, 3, 5).reshape(len(grid), -1).contiguous()


@njit(nogil=True)
@no_type_check
def swept(f, inputs, weights, scratch, blocks, low, high, batch):
    """Sums of every panel over the bytes low..high of its rows; low: a multiple of TILE."""
    halves, places = halves_of(weights), places_of(inputs)
    starts = carray(pointer(scratch + f.starts), blocks + 1, np.int64)
    panels = carray(pointer(scratch + f.panels), starts[blocks], PANEL)
    special = carray(pointer(scratch + f.special), batch, np.int64)
    for b in range(batch):
        size = (high - low + TILE - 1) // TILE * TILE * halves
        at = scratch + f.sums + 4 * (b * f.sums_size + halves * low)
        carray(pointer(at), size, np.float32)[:] = 0
    for block in range(blocks):
        for column in range(low, high, TILE):
            for p in range(starts[block], starts[block + 1]):
                panel = panels[p]
                if special[panel.row]:
                    continue
                rows = scratch + f.addresses + 8 * panel.first
                after, ahead = rows, column + AHEAD
                if ahead >= high and p + 1 < starts[blocks]:
                    after, ahead = rows + 8 * panel.count, ahead - high + low
                grid = 4 * (panel.group * f.sums_size + halves * column)
                dots(
                    inputs, weights, rows, panel.count, column, f.row_bytes - column, after, ahead,
                    scratch + f.digits + places * panel.first,
                    scratch + f.panels + PANEL_BYTES * p,
                    scratch + f.sums + 4 * (panel.row * f.sums_size + halves * column),
                    f.scales + grid, f.zeros + grid,
                )  # fmt: skip


@njit(nogil=True)
@no_type_check
def spread(f, weights, scratch, row, low, high):
    """Sums in the order of the outputs, int8's with their scales."""
    halves = halves_of(weights)
    sums = carray(pointer(scratch + f.sums + 4 * row * f.sums_size), f.sums_size, np.float32)
    total = carray(pointer(scratch + f.total + 4 * row * f.total_size), f.total_size, np.float32)
    scales = carray(pointer(f.plain_scales), f.d_out, np.float32)
    for half in range(halves):
        for first in range(low, min(high, f.row_bytes), 4):
            part = first % TILE // 4
            at = halves * (first - first % TILE) + half * TILE + 16 * (part % 4) + part // 4 * 4
            o = half * f.row_bytes + first
            for i in range(min(4, f.row_bytes - first, f.d_out - o)):
                total[o + half * f.gap + i] = sums[at + i] * (
                    scales[o + i] if halves == 1 else F4(1)
                )


@njit(nogil=True)
@no_type_check
def plain(f, weights, scratch, n_kept, row, low, high):
    """The same outputs of one row of the batch by the definition, channel by channel."""
    channels = carray(pointer(scratch + f.kept), n_kept + 1, np.int32)
    x = carray(pointer(scratch + f.kept_x + 4 * row * f.list_size), n_kept + 1, np.float32)
    high = min(high, f.row_bytes)
    for half in range(halves_of(weights)):
        first = half * f.row_bytes + low
        n = min(high - low, f.d_out - first)
        at = scratch + f.total + 4 * (row * f.total_size + first + half * f.gap)
        total = carray(pointer(at), n, np.float32)
        total[:] = 0
        for k in range(n_kept):
            if x[k] != 0:
                grid = 4 * (channels[k] // f.group * f.d_out + first)
                scales = carray(pointer(f.plain_scales + grid), n, np.float32)
                codes = f.values + f.row_bytes * np.int64(channels[k]) + low
                if halves_of(weights) == 1:
                    signed = carray(pointer(codes), n, np.int8)
                    for o in range(n):
                        total[o] += x[k] * (F4(signed[o]) * scales[o])
                    continue
                halved = carray(pointer(codes), n, np.uint8)
                zeros = carray(pointer(f.plain_zeros + grid), n, np.float32)
                for o in range(n):
                    zero = zeros[o] if f.plain_zeros else F4(8)
                    total[o] += x[k] * ((F4((halved[o] >> 4 * half) & 15) - zero) * scales[o])


@njit(nogil=True)
@no_type_check
def before(x, batch, frame, scratch, inputs):
    """Lists and panels, made by one thread."""
    f = carray(pointer(frame), 1, CODES)[0]
    n_kept, n_rest = listed(f, inputs, x, scratch, batch)
    middle = 128 if f.scales == f.plain_scales else 8 * (f.plain_zeros == 0)
    return n_kept, n_rest, panelled(f, inputs, scratch, n_kept, batch, middle), f.parts


@njit(nogil=True)
@no_type_check
def work(y, batch, frame, scratch, part, n_kept, n_rest, blocks, inputs, weights, factors):
    """One thread's share of the bytes of a row, from the panels to what is returned.

    The outputs of the high halves of bytes are kept `gap` floats further on: what vectors write
    behind the last output of the low ones is nobody's.
    """
    f = carray(pointer(frame), 1, CODES)[0]
    special = carray(pointer(scratch + f.special), batch, np.int64)
    low, high = share(f.row_bytes, part, f.parts, TILE)
    if low >= high:
        return
    if NATIVE:
        swept(f, inputs, weights, scratch, blocks, low, high, batch)
    for b in range(batch):
        if NATIVE and special[b] == 0:
            spread(f, weights, scratch, b, low, high)
        else:
            plain(f, weights, scratch, n_kept, b, low, high)
    small = scratch + f.small + 4 * part * batch * f.small_size
    if f.rank:
        cleared(small, 0, f.small_size, batch, f.small_size)
        summed_rows(
            factors, f.down, f.down_bytes, scratch + f.rest, scratch + f.rest_x, 0, n_rest,
            small, 0, f.rank, batch, f.list_size, f.small_size,
        )  # fmt: skip
    for half in range(halves_of(weights)):
        first, last = half * f.row_bytes + low, min(half * f.row_bytes + high, f.d_out)
        moved = scratch + 4 * half * f.gap
        if f.rank and first < last:
            summed_rows(
                factors, f.up, f.up_bytes, f.order, small, 0, (f.rank + PASS - 1) // PASS * PASS,
                moved + f.total, first, last, batch, f.small_size, f.total_size,
            )  # fmt: skip
        finish(f, inputs, moved, y, first, last, batch)


@cached()
@no_type_check
def alone(x, y, batch, frame, scratch, inputs, weights, factors):
    """y of x on one thread; the last three say what lies in memory."""
    n_kept, n_rest, blocks, _ = before(x, batch, frame, scratch, inputs)
    work(y, batch, frame, scratch, 0, n_kept, n_rest, blocks, inputs, weights, factors)


@cached(parallel=True)
@no_type_check
def together(x, y, batch, frame, scratch, inputs, weights, factors):
    """The same on as many threads as there are parts."""
    n_kept, n_rest, blocks, parts = before(x, batch, frame, scratch, inputs)
    for part in prange(parts):
        work(y, batch, frame, scratch, part, n_kept, n_rest, blocks, inputs, weights, factors)
