"""All blocks of a Llama-shaped model on one token, in one call: nothing comes back to Python.

Between linears as `cpu` does; linears are prepared products (`ctr_kernels.sparse_gemv`), each known
by the address of its frame.
"""

from typing import no_type_check

import numba
from numba.extending import overload

from ctr_kernels.cached import cached
from ctr_kernels.one_token.cpu import add_norm, attend, gate
from ctr_kernels.sparse_gemv import cpu_codes, cpu_float
from ctr_kernels.sparse_gemv.vector import pointer

CODES = (numba.int8, numba.uint8)


@no_type_check
def product(x, y, batch, frame, scratch, inputs, weights, factors):
    """y of x, both addresses; `weights` says which kernel's frame it is."""
    raise NotImplementedError


@overload(product)
@no_type_check
def _product(x, y, batch, frame, scratch, inputs, weights, factors):
    kernel = cpu_codes.alone if weights.instance_type in CODES else cpu_float.alone

    def run(x, y, batch, frame, scratch, inputs, weights, factors):
        kernel(x, y, batch, frame, scratch, inputs, weights, factors)

    return run


@cached()
@no_type_check
def blocks(
    frames, norms, caches, work, turns, length, seen, scores, turned, scale, eps, scratch,
    inputs, weights, factors,
):  # fmt: skip
    """work: h, which becomes the last h, and arrays to work in; x is the last norm's output.

    frames [n_blocks, 7]: q, k, v, o, gate, up, down. norms [2 n_blocks + 1, d_model]. caches
    [n_blocks, 3]: addresses of keys and values [batch, n_kv, room, d_head], and their room; by
    address, because a tuple of arrays would be compiled for every depth. The rest as in `attend`.
    """
    resid, x, q, k, v, mixed, delta, gated, up, hidden = work
    batch, d_head = resid.shape[0], turned.shape[1]
    n_kv = k.shape[1] // d_head
    delta[:] = 0
    for i in range(frames.shape[0]):
        add_norm(resid, delta, norms[2 * i], eps, x)
        at, f = x.ctypes.data, frames[i]
        product(at, q.ctypes.data, batch, f[0], scratch, inputs, weights, factors)
        product(at, k.ctypes.data, batch, f[1], scratch, inputs, weights, factors)
        product(at, v.ctypes.data, batch, f[2], scratch, inputs, weights, factors)
        shape = (batch, n_kv, caches[i, 2], d_head)
        keys = numba.carray(pointer(caches[i, 0]), shape, inputs)
        values = numba.carray(pointer(caches[i, 1]), shape, inputs)
        attend(q, k, v, turns, keys, values, length, seen, scale, scores, turned, mixed)
        at = delta.ctypes.data
        product(mixed.ctypes.data, at, batch, f[3], scratch, inputs, weights, factors)
        add_norm(resid, delta, norms[2 * i + 1], eps, x)
        at = x.ctypes.data
        product(at, gated.ctypes.data, batch, f[4], scratch, inputs, weights, factors)
        product(at, up.ctypes.data, batch, f[5], scratch, inputs, weights, factors)
        gate(gated, up, hidden)
        at = delta.ctypes.data
        product(hidden.ctypes.data, at, batch, f[6], scratch, inputs, weights, factors)
    add_norm(resid, delta, norms[2 * frames.shape[0]], eps, x)
