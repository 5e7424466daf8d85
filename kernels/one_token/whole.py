"""All blocks of a Llama-shaped model on one token, in one call: nothing comes back to Python.

Between linears as `cpu` does; linears are prepared products (`ctr_kernels.sparse_gemv`), each known
by the address of its frame.
"""

from typing import no_type_check

import numba
from numba.extending import overload

from ctr_kernels.one_token.cpu import add_norm, attend, gate
from ctr_kernels.sparse_gemv import cpu_codes, cpu_float

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


@numba.njit(cache=True, nogil=True)
@no_type_check
def blocks(
    frames, norms, work, turns, keys, values, length, seen, scores, turned, scale, eps, scratch,
    inputs, weights, factors,
):  # fmt: skip
    """work: h, which becomes the last h, and arrays to work in; x is the last norm's output.

    frames [n_blocks, 7]: q, k, v, o, gate, up, down. norms [2 n_blocks + 1, d_model]. keys and
    values: tuples, an array a block. The rest as `attend` wants it.
    """
    resid, x, q, k, v, mixed, delta, gated, up, hidden = work
    batch = resid.shape[0]
    delta[:] = 0
    for i in range(frames.shape[0]):
        add_norm(resid, delta, norms[2 * i], eps, x)
        at, f = x.ctypes.data, frames[i]
        product(at, q.ctypes.data, batch, f[0], scratch, inputs, weights, factors)
        product(at, k.ctypes.data, batch, f[1], scratch, inputs, weights, factors)
        product(at, v.ctypes.data, batch, f[2], scratch, inputs, weights, factors)
        attend(q, k, v, turns, keys[i], values[i], length, seen, scale, scores, turned, mixed)
        product(
            mixed.ctypes.data, delta.ctypes.data, batch, f[3], scratch, inputs, weights, factors
        )
        add_norm(resid, delta, norms[2 * i + 1], eps, x)
        product(at, gated.ctypes.data, batch, f[4], scratch, inputs, weights, factors)
        product(at, up.ctypes.data, batch, f[5], scratch, inputs, weights, factors)
        gate(gated, up, hidden)
        product(
            hidden.ctypes.data, delta.ctypes.data, batch, f[6], scratch, inputs, weights, factors
        )
    add_norm(resid, delta, norms[2 * frames.shape[0]], eps, x)
