"""The averaging task in an ordinary transformer: several heads, MLPs, LayerNorm, residuals.

    e_i = x_i E_slope + E_number,   e_SEP = E_sep                          (+ P_i with positions)
    u   = resid + sum_h softmax(q_h k_h^T / sqrt(d_head)) v_h W_O[h],    q_h = LN(resid) W_Q[h], ...
    resid <- u + relu(LN(u) W_in + b_in) W_out
    f   = (LN(resid) W_U + b_U)_T

Causal, pre-norm (Xiong et al. 2020, arXiv 2002.04745), ReLU as in Vaswani et al. 2017 (arXiv
1706.03762). Nothing of the theorem is built in: no rank is bounded, no coordinate means anything,
and the residual connection of the last layer stays. Norm, MLP and positions can be left out
(`Shape`); a weight that a shape does not have has a size of 0.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Key

from toy.errors import Refused
from toy.larger.edit import Edit
from toy.larger.shape import Shape
from toy.larger.weights import Weights, initial_weights
from toy.transformer import NUMBER, SEP, Activations

EPSILON = 1e-5
"""Added to the variance that a LayerNorm divides by."""


def _initial(shape: Shape, name: str, key: Key[Array, ""]) -> Float[Array, "..."]:
    return getattr(initial_weights(shape, key), name)


class Averager(nn.Module):
    """f(x): the mean of the numbers after [SEP], as far as the weights manage it."""

    shape: Shape

    def setup(self) -> None:
        """Declare the parameters, with the initial values of `initial_weights`."""
        self.weights = Weights(
            *(self.param(name, partial(_initial, self.shape, name)) for name in Weights._fields)
        )

    def __call__(
        self,
        x: Float[Array | np.ndarray, "batch seq"],
        t: Int[Array | np.ndarray, " batch"],
        last: Int[Array | np.ndarray, " batch"] | None = None,
        edit: Edit | None = None,
    ) -> tuple[Float[Array, " batch"], Activations]:
        """The output and the activations; t and `last`, the read-out, count from 1.

        Raises `Refused` for a sequence longer than the positions that were learned.
        """
        w, shape = self.weights, self.shape
        stream = _embed(w, shape, x, t)
        depths, patterns, outputs = [stream], [], []
        seen = jnp.tri(x.shape[1], dtype=bool)[None]
        for layer in range(shape.layers):
            stream, pattern, z = _block(w, shape, layer, stream, stream, seen, edit)
            if layer == 0 and edit is not None:
                stream = stream + edit.shift
            depths.append(stream)
            patterns.append(pattern)
            outputs.append(z)
        row = jnp.full(x.shape[0], x.shape[1]) if last is None else jnp.asarray(last)
        end = jnp.take_along_axis(stream, row[:, None, None] - 1, axis=1)
        return _read(w, shape, end), Activations(
            tokens=jnp.where(_is_sep(x, t), SEP, NUMBER),
            resid=jnp.stack(depths),
            pattern=jnp.stack(patterns),
            z=jnp.stack(outputs),
        )

    def predict(
        self,
        x: Float[Array | np.ndarray, "batch seq"],
        t: Int[Array | np.ndarray, " batch"],
        last: Int[Array | np.ndarray, " batch"],
    ) -> Float[Array, " batch"]:
        """The same output, with the last block computed at the read-out only: for training."""
        w, shape = self.weights, self.shape
        stream = _embed(w, shape, x, t)
        seen = jnp.tri(x.shape[1], dtype=bool)[None]
        for layer in range(shape.layers - 1):
            stream, _, _ = _block(w, shape, layer, stream, stream, seen, None)
        row = jnp.asarray(last)
        end = jnp.take_along_axis(stream, row[:, None, None] - 1, axis=1)
        seen = (jnp.arange(x.shape[1])[None] < row[:, None])[:, None]
        end, _, _ = _block(w, shape, shape.layers - 1, end, stream, seen, None)
        return _read(w, shape, end)


def _is_sep(
    x: Float[Array | np.ndarray, "batch seq"], t: Int[Array | np.ndarray, " batch"]
) -> Bool[Array, "batch seq"]:
    return jnp.arange(1, x.shape[1] + 1)[None] == jnp.asarray(t)[:, None]


def _embed(
    w: Weights,
    shape: Shape,
    x: Float[Array | np.ndarray, "batch seq"],
    t: Int[Array | np.ndarray, " batch"],
) -> Float[Array, "batch seq d_model"]:
    seq = x.shape[1]
    if shape.positions and seq > shape.longest:
        raise Refused(
            f"{seq} tokens, but {shape.longest} positions are learned: give fewer tokens, "
            "or a shape without positions"
        )
    number = jnp.asarray(x)[..., None] * w.E_slope[None, None] + w.E_number[None, None]
    stream = jnp.where(_is_sep(x, t)[..., None], w.E_sep[None, None], number)
    return stream + w.P[None, :seq] if shape.positions else stream


def _read(w: Weights, shape: Shape, end: Float[Array, "batch 1 d_model"]) -> Float[Array, " batch"]:
    return (_norm(w, shape, shape.norms - 1, end) @ w.W_U)[:, 0] + w.b_U


def _block(
    w: Weights,
    shape: Shape,
    layer: int,
    queries: Float[Array, "batch query d_model"],
    stream: Float[Array, "batch key d_model"],
    seen: Bool[Array, "#batch query key"],
    edit: Edit | None,
) -> tuple[
    Float[Array, "batch query d_model"],
    Float[Array, "batch head query key"],
    Float[Array, "batch head query d_head"],
]:
    """The queries' stream after the block, their pattern, and what each head has gathered."""
    pattern, z = _attend(w, shape, layer, queries, stream, seen, edit)
    mid = queries + jnp.einsum("bhqd,hdm->bqm", z, w.W_O[layer])
    return mid + _mlp(w, shape, layer, mid, edit), pattern, z


def _norm(
    w: Weights, shape: Shape, which: int, stream: Float[Array, "batch seq d_model"]
) -> Float[Array, "batch seq d_model"]:
    if not shape.norm:
        return stream
    centred = stream - stream.mean(axis=-1, keepdims=True)
    size = jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + EPSILON)
    return centred * size * w.norm_scale[which][None, None] + w.norm_shift[which][None, None]


def _attend(
    w: Weights,
    shape: Shape,
    layer: int,
    queries: Float[Array, "batch query d_model"],
    stream: Float[Array, "batch key d_model"],
    seen: Bool[Array, "#batch query key"],
    edit: Edit | None,
) -> tuple[Float[Array, "batch head query key"], Float[Array, "batch head query d_head"]]:
    norm = partial(_norm, w, shape, layer * (2 if shape.mlp else 1))
    asking, asked = norm(queries), norm(stream)
    q = jnp.einsum("bqm,hmd->bhqd", asking, w.W_Q[layer])
    k, v = (jnp.einsum("bkm,hmd->bhkd", asked, W[layer]) for W in (w.W_K, w.W_V))
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) * shape.d_head**-0.5
    may = seen[:, None]
    if edit is not None:
        scores = jnp.where(edit.flat[layer], 0.0, scores)
        may = may & ~edit.cut[layer]
    pattern = nn.softmax(jnp.where(may, scores, -jnp.inf), axis=-1)
    return pattern, jnp.einsum("bhqk,bhkd->bhqd", pattern, v)


def _mlp(
    w: Weights,
    shape: Shape,
    layer: int,
    stream: Float[Array, "batch seq d_model"],
    edit: Edit | None,
) -> Float[Array, "batch seq d_model"]:
    if not shape.mlp:
        return jnp.zeros_like(stream)
    into = _norm(w, shape, 2 * layer + 1, stream)
    written = nn.relu(into @ w.W_in[layer] + w.b_in[layer][None, None]) @ w.W_out[layer]
    if edit is None:
        return written
    return jnp.where(edit.mute[layer], edit.writes[layer][None, None], written)


def apply(
    shape: Shape,
    weights: Weights,
    x: Float[Array | np.ndarray, "batch seq"],
    t: Int[Array | np.ndarray, " batch"],
    last: Int[Array | np.ndarray, " batch"] | None = None,
    edit: Edit | None = None,
) -> tuple[Float[Array, " batch"], Activations]:
    """`Averager` of this shape with these weights, differentiable in them."""
    return Averager(shape).bind({"params": weights._asdict()})(x, t, last, edit)


def predict(
    shape: Shape,
    weights: Weights,
    x: Float[Array | np.ndarray, "batch seq"],
    t: Int[Array | np.ndarray, " batch"],
    last: Int[Array | np.ndarray, " batch"],
) -> Float[Array, " batch"]:
    """The output of `apply` without its activations, and faster."""
    model = Averager(shape).bind({"params": weights._asdict()})
    return model.predict(x, t, last)
