"""The two-layer attention-only transformer of the theorem, in flax.

    e_i = [x_i, -1],  e_SEP = [s_num, -s_tag]
    H   = softmax(E E^T) E W_V1 + E                     (layer 1: W_Q = W_K = I)
    f   = (softmax(H W_Q2 W_K2^T H^T) H W_V2)_T          (layer 2, read out at the last token)

Causal softmax; no 1/sqrt(d_head), no LayerNorm, no positions: Zhang, Khan, Papyan (2025), arXiv
2502.00919, Section 4, whose W_Q W_K without a transpose is our W_Q2 W_K2^T (docs/theory.md).
d_model = d_head = 2 and there is one head. Coordinate 0 carries numbers, coordinate 1 tags.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from toy.inputs import check_causal

NUMBER, SEP = 0, 1
"""What `tokens` holds: the two kinds of token."""


class Weights(NamedTuple):
    """All that is trained; seeds, where there are several, are a leading axis of every field."""

    s_num: Float[Array | np.ndarray, "*seeds"]
    s_tag: Float[Array | np.ndarray, "*seeds"]
    W_V1: Float[Array | np.ndarray, "*seeds d_model d_model"]
    W_Q2: Float[Array | np.ndarray, "*seeds d_model d_head"]
    W_K2: Float[Array | np.ndarray, "*seeds d_model d_head"]
    W_V2: Float[Array | np.ndarray, "*seeds d_model 1"]


class Activations(NamedTuple):
    """What a forward pass left behind, in the names and axes of any transformer's trace.

    There is no W_O, so z is what a layer writes. Layer 2 has one value, which stands in
    coordinate 0 of z[1] beside a 0; the paper reads it without the residual connection, so the
    output is z[1] at the last token, while resid[2] = resid[1] + z[1] as after any block.
    """

    tokens: Int[Array, "batch seq"]
    resid: Float[Array, "depth batch seq d_model"]  # depth = layer + 1: embedding, after 1, after 2
    pattern: Float[Array, "layer batch head query key"]
    z: Float[Array, "layer batch head seq d_head"]


class ToyTrace(NamedTuple):
    """`Activations` as numpy arrays: what probes read."""

    tokens: Int[np.ndarray, "batch seq"]
    resid: Float[np.ndarray, "depth batch seq d_model"]
    pattern: Float[np.ndarray, "layer batch head query key"]
    z: Float[np.ndarray, "layer batch head seq d_head"]


def theorem_weights(s_tag: float, b: float = 0.0, d: float = 1.0) -> Weights:
    """W_V1 = diag(0, -1), W_Q2 W_K2^T = [[0, b], [0, d]], W_V2 = [1, 0]^T, s_num = 0; float64."""
    return Weights(
        s_num=np.zeros(()),
        s_tag=np.asarray(s_tag, dtype=np.float64),
        W_V1=np.array([[0.0, 0.0], [0.0, -1.0]]),
        W_Q2=np.array([[0.0, b], [0.0, d]]),
        W_K2=np.array([[0.0, 0.0], [0.0, 1.0]]),
        W_V2=np.array([[1.0], [0.0]]),
    )


def _attention(
    scores: Float[Array, "batch query key"], mask: Bool[np.ndarray, "query key"]
) -> Float[Array, "batch query key"]:
    return nn.softmax(jnp.where(mask[None], scores, -jnp.inf), axis=-1)


class Averager(nn.Module):
    """f(x): the mean of the numbers after [SEP], as far as the weights manage it."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array | np.ndarray, "batch seq"],
        t: Int[Array | np.ndarray, " batch"],
        last: Int[Array | np.ndarray, " batch"] | None = None,
        mask: Bool[np.ndarray, "query key"] | None = None,
    ) -> tuple[Float[Array, " batch"], Activations]:
        """The output and the activations.

        t is [SEP]'s position and `last` the read-out's, both from 1; what follows `last` is
        padding, which causality hides. `mask` (True: may look) is the lower triangle unless
        given. Raises `NotCausal` for a mask that lets a query see a later key, `Refused` for
        one that blinds a query.
        """
        seq = x.shape[1]
        mask = np.tri(seq, dtype=bool) if mask is None else mask
        check_causal(mask)
        normal = nn.initializers.normal
        s_num, s_tag = (self.param(name, normal(1.0), ()) for name in ("s_num", "s_tag"))
        W_V1, W_Q2, W_K2 = (
            self.param(name, normal(0.5), (2, 2)) for name in ("W_V1", "W_Q2", "W_K2")
        )
        W_V2 = self.param("W_V2", normal(0.5), (2, 1))

        sep = jnp.arange(1, seq + 1)[None] == jnp.asarray(t)[:, None]
        embedding = jnp.stack(
            [jnp.where(sep, s_num, x), jnp.where(sep, -s_tag, -jnp.ones_like(s_tag))], axis=-1
        )
        pattern_1 = _attention(jnp.einsum("bqi,bki->bqk", embedding, embedding), mask)
        z_1 = pattern_1 @ (embedding @ W_V1)
        stream = embedding + z_1
        scores = jnp.einsum("bqi,bki->bqk", stream @ W_Q2, stream @ W_K2)
        pattern_2 = _attention(scores, mask)
        value = pattern_2 @ (stream @ W_V2)
        z_2 = jnp.concatenate([value, jnp.zeros_like(value)], axis=-1)

        activations = Activations(
            tokens=jnp.where(sep, SEP, NUMBER),
            resid=jnp.stack([embedding, stream, stream + z_2]),
            pattern=jnp.stack([pattern_1, pattern_2])[:, :, None],
            z=jnp.stack([z_1, z_2])[:, :, None],
        )
        row = jnp.full(x.shape[0], seq) if last is None else jnp.asarray(last)
        return jnp.take_along_axis(value[..., 0], row[:, None] - 1, axis=1)[:, 0], activations


def apply(
    weights: Weights,
    x: Float[Array | np.ndarray, "batch seq"],
    t: Int[Array | np.ndarray, " batch"],
    last: Int[Array | np.ndarray, " batch"] | None = None,
    mask: Bool[np.ndarray, "query key"] | None = None,
) -> tuple[Float[Array, " batch"], Activations]:
    """`Averager` with these weights, differentiable in them."""
    return Averager().bind({"params": weights._asdict()})(x, t, last, mask)


def trace(activations: Activations) -> ToyTrace:
    """The same activations as numpy arrays."""
    return ToyTrace(*(np.asarray(field) for field in activations))


def forward(
    weights: Weights,
    x: Float[np.ndarray, "batch seq"],
    t: int,
    *,
    dtype: type[np.float64] | type[np.float32] = np.float64,
) -> tuple[Float[np.ndarray, " batch"], ToyTrace]:
    """The output and the trace of the literal model, computed in `dtype`.

    One [SEP] position for the whole batch. Raises nothing of its own: what the floats give.
    """
    with jax.enable_x64(dtype is np.float64):
        cast = Weights(*(jnp.asarray(field, dtype=dtype) for field in weights))
        where = np.full(x.shape[0], t)
        f, activations = jax.jit(apply)(cast, jnp.asarray(x, dtype=dtype), where)
        return np.asarray(f), trace(activations)
