"""Routes put into the larger toy by hand, so that whoever classifies routes has something to meet.

Both need no norm (`shape.norm` False): a LayerNorm would bound what they write. What they do not
use is 0. The directions u (numbers), v (tags), g (flag) and o (output) are orthonormal and
arbitrary, as in docs/theory.md for any d_model.
"""

import numpy as np
from jaxtyping import Float

from toy.errors import Refused
from toy.larger.shape import Shape
from toy.larger.weights import Weights, sizes


def _directions(shape: Shape, seed: int) -> Float[np.ndarray, "4 d_model"]:
    drawn = np.random.default_rng(seed).standard_normal((shape.d_model, 4))
    return np.linalg.qr(drawn)[0].T


def _nothing(shape: Shape) -> Weights:
    if shape.norm or shape.layers < 2 or shape.d_model < 4 or shape.d_head < 2:
        raise Refused(
            "a planted route needs two layers without norm, d_model >= 4 and d_head >= 2: "
            f"not {shape}"
        )
    return Weights(**{name: np.zeros(size) for name, size in sizes(shape).items()})


def theorem(
    shape: Shape, s_tag: float, *, b: float = 0.0, d: float = 1.0, seed: int = 0
) -> Weights:
    """W_Q1 = W_K1 = [u v], W_V1 = -v v^T, W_QK2 = (b u + d v) v^T, value u, written to o; float64.

    The same function as `toy.transformer.theorem_weights`. Raises `Refused` for a shape that
    cannot hold it.
    """
    w = _nothing(shape)
    u, v, _, o = _directions(shape, seed)
    gain = shape.d_head**0.25  # twice, this undoes 1/sqrt(d_head)
    w.E_slope[:], w.E_number[:], w.E_sep[:], w.W_U[:] = u, -v, -s_tag * v, o
    for W in (w.W_Q, w.W_K):
        W[0, 0, :, 0], W[0, 0, :, 1] = gain * u, gain * v
    w.W_V[0, 0, :, 0], w.W_O[0, 0, 0] = v, -v
    w.W_Q[1, 0, :, 0], w.W_K[1, 0, :, 0] = gain * (b * u + d * v), gain * v
    w.W_V[1, 0, :, 0], w.W_O[1, 0, 0] = u, o
    return w


def uniform(shape: Shape, *, gap: float = 12.0, seed: int = 0) -> Weights:
    """Layer 1 looks at all tokens alike, its MLP makes a flag of 1/i > 0, layer 2 reads the flag.

    tau_i = 0 before [SEP], 1 + 1/t at it, 1/i after it; the flag is clip(T tau) -
    clip(T (tau - 3/4)) with clip(z) = relu(z) - relu(z - 1), and `gap` is the logit between
    flagged tokens and others (C2 in docs/theory.md). T is `shape.longest`, at least 4; float64.
    Raises `Refused` for a shape that cannot hold it.
    """
    w = _nothing(shape)
    if shape.neurons < 4 or shape.longest < 4:
        raise Refused(f"four neurons make the flag, of sequences of at least 4: not {shape}")
    u, v, g, o = _directions(shape, seed)
    w.E_slope[:], w.E_sep[:], w.W_U[:] = u, v, o
    w.W_V[0, 0, :, 0], w.W_O[0, 0, 0] = v, v
    T = shape.longest
    w.W_in[0, :, :4] = T * v[:, None]
    w.b_in[0, :4] = 0.0, -1.0, -0.75 * T, -0.75 * T - 1
    w.W_out[0, :4] = np.outer([1.0, -1.0, -1.0, 1.0], g)
    gain = shape.d_head**0.25 * gap**0.5
    w.W_Q[1, 0, :, 0] = w.W_K[1, 0, :, 0] = gain * g
    w.W_V[1, 0, :, 0], w.W_O[1, 0, 0] = u, o
    return w


def subtract(shape: Shape, T: int, t: int, *, gap: float = 9.0, seed: int = 0) -> Weights:
    """[SEP] writes minus the sum of what stands before it, layer 2 adds all numbers (C5); float64.

    E_sep = 0, W_V1 = -w u u^T, logit `gap` of [SEP] over numbers, values scaled by V = D / n with
    D = T - 1 + e^gap and w = t e^{-gap}: for one length T and one place t only. Raises `Refused`
    for a shape that cannot hold it.
    """
    w = _nothing(shape)
    u, v, _, o = _directions(shape, seed)
    w.E_slope[:], w.E_number[:], w.W_U[:] = u, v, o
    w.W_V[0, 0, :, 0], w.W_O[0, 0, 0] = u, -t * np.exp(-gap) * u
    gain = shape.d_head**0.25 * gap**0.5
    w.W_Q[1, 0, :, 0], w.W_K[1, 0, :, 0] = gain * v, -gain * v
    w.W_V[1, 0, :, 0], w.W_O[1, 0, 0] = u, (T - 1 + np.exp(gap)) / (T - t) * o
    return w
