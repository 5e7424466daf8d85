"""The same, compiled: float32 arithmetic on float32 or bfloat16 numbers, into arrays given.

bfloat16 comes as its 16 bits, the upper half of a float32's. The loop that calls these fills every
array; nothing is allocated here.
"""

from typing import no_type_check

import numba
import numpy as np
from numba.extending import overload

from ctr_kernels.cached import cached
from ctr_kernels.power import power

_REORDERED = {"reassoc", "nsz", "contract", "arcp"}
_HALF, _LOW = np.uint32(0x7FFF), np.uint32(16)
_ONE, _ZERO = np.float32(1), np.float32(0)
_LEAST = np.float32(-87)


@no_type_check
def wide(number):
    """A float32 of a float32, or of bfloat16's bits."""
    raise NotImplementedError


@overload(wide)
@no_type_check
def _wide(number):
    if number == numba.types.uint16:
        return lambda number: np.uint32(np.uint32(number) << _LOW).view(np.float32)
    return lambda number: np.float32(number)


@no_type_check
def put(array, i, j, number):
    """array[i, j] = number, rounded to bfloat16 (nearest, ties to even) where it holds bits."""
    raise NotImplementedError


@overload(put)
@no_type_check
def _put(array, i, j, number):
    if array.dtype == numba.types.uint16:

        def rounded(array, i, j, number):
            bits = np.float32(number).view(np.uint32)
            up = np.uint32(bits + _HALF + ((bits >> _LOW) & np.uint32(1)))
            quiet = np.uint32(bits | np.uint32(0x400000))  # rounding would make a NaN infinite
            array[i, j] = np.uint16((up if number == number else quiet) >> _LOW)

        return rounded

    def stored(array, i, j, number):
        array[i, j] = number

    return stored


@cached(fastmath=_REORDERED)
@no_type_check
def add_norm(resid, delta, weight, eps, x):
    """resid += delta in place; x = RMSNorm(resid)."""
    batch, d_model = resid.shape
    for b in range(batch):
        square = _ZERO
        for j in range(d_model):
            h = resid[b, j] + wide(delta[b, j])
            resid[b, j] = h
            square += h * h
        factor = _ONE / np.sqrt(square / np.float32(d_model) + eps)
        for j in range(d_model):
            put(x, b, j, resid[b, j] * factor * weight[j])


@cached(fastmath={"contract"})
@no_type_check
def gate(gated, up, x):
    """x = SiLU(gated) ∘ up."""
    batch, d_mlp = gated.shape
    for b in range(batch):
        for j in range(d_mlp):
            g = wide(gated[b, j])
            # e^-87 and e^87 are the ends of what float32 can hold without losing bits.
            less = g if g < -_LEAST else -_LEAST
            less = less if less > _LEAST else _LEAST
            less = less if g == g else g
            rest, scale = power(-less)
            put(x, b, j, g / (_ONE + (scale + scale * rest)) * wide(up[b, j]))


@cached(fastmath={"contract"})
@no_type_check
def _turn(source, target, b, heads, angles, first):
    """target[first + i] = rotated head i of source[b], float32."""
    half = angles.shape[2]
    for i in range(heads):
        for j in range(half):
            low = wide(source[b, 2 * half * i + j])
            high = wide(source[b, 2 * half * i + half + j])
            cos, sin = angles[b, 0, j], angles[b, 1, j]
            target[first + i, j] = low * cos - high * sin
            target[first + i, half + j] = high * cos + low * sin


@cached(fastmath=_REORDERED)
@no_type_check
def _scores(query, keys, seen, length, scale, scores):
    """scores[t] = scale q·k_t where seen, -inf elsewhere; the largest is returned."""
    d_head = keys.shape[1]
    largest = np.float32(-np.inf)
    for t in range(length + 1):
        total = _ZERO
        for j in range(d_head):
            total += query[j] * wide(keys[t, j])
        scores[t] = total * scale
    for t in range(length):
        if not seen[t]:
            scores[t] = np.float32(-np.inf)
    for t in range(length + 1):
        largest = scores[t] if scores[t] > largest else largest
    return largest


@cached(fastmath=_REORDERED)
@no_type_check
def _pattern(scores, length, largest):
    """scores become e^(score - largest); their sum is returned."""
    total = _ZERO
    for t in range(length + 1):
        less = scores[t] - largest
        hidden = less < _LEAST
        rest, scale = power(_LEAST if hidden else less)
        scores[t] = _ZERO if hidden else scale + scale * rest
        total += scores[t]
    return total


@cached(fastmath=_REORDERED)
@no_type_check
def attend(q, k, v, angles, keys, values, length, seen, scale, scores, turned, out):
    """One query a sequence: q, k, v [batch, heads · d_head]; out as q.

    scores [room] and turned [n_heads + n_kv, d_head] are float32 to work in.
    """
    batch, n_kv, _, d_head = keys.shape
    n_heads = q.shape[1] // d_head
    group = n_heads // n_kv
    for b in range(batch):
        _turn(q, turned, b, n_heads, angles, 0)
        _turn(k, turned, b, n_kv, angles, n_heads)
        for g in range(n_kv):
            for j in range(d_head):
                put(keys[b, g], length, j, turned[n_heads + g, j])
                put(values[b, g], length, j, wide(v[b, g * d_head + j]))
            mixed = turned[n_heads + g]  # its key is stored: free to work in
            for i in range(g * group, (g + 1) * group):
                largest = _scores(turned[i], keys[b, g], seen[b], length, scale, scores)
                total = _pattern(scores, length, largest)
                mixed[:] = _ZERO
                for t in range(length + 1):
                    p = scores[t]
                    for j in range(d_head):
                        mixed[j] += p * wide(values[b, g, t, j])
                for j in range(d_head):
                    put(out, b, i * d_head + j, mixed[j] / total)
