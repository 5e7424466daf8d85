"""What the larger toy learns: the weights of a shape, their sizes and where they start."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from toy.larger.shape import Shape


class Weights(NamedTuple):
    """All that is trained; seeds, where there are several, are a leading axis of every field.

    The norms come in the order in which they are applied; `norm`, `row` and `d_mlp` are 0 for a
    shape without norm, positions or MLP.
    """

    E_slope: Float[Array | np.ndarray, "*seeds d_model"]
    E_number: Float[Array | np.ndarray, "*seeds d_model"]
    E_sep: Float[Array | np.ndarray, "*seeds d_model"]
    P: Float[Array | np.ndarray, "*seeds row d_model"]
    W_Q: Float[Array | np.ndarray, "*seeds layer head d_model d_head"]
    W_K: Float[Array | np.ndarray, "*seeds layer head d_model d_head"]
    W_V: Float[Array | np.ndarray, "*seeds layer head d_model d_head"]
    W_O: Float[Array | np.ndarray, "*seeds layer head d_head d_model"]
    W_in: Float[Array | np.ndarray, "*seeds layer d_model d_mlp"]
    b_in: Float[Array | np.ndarray, "*seeds layer d_mlp"]
    W_out: Float[Array | np.ndarray, "*seeds layer d_mlp d_model"]
    norm_scale: Float[Array | np.ndarray, "*seeds norm d_model"]
    norm_shift: Float[Array | np.ndarray, "*seeds norm d_model"]
    W_U: Float[Array | np.ndarray, "*seeds d_model"]
    b_U: Float[Array | np.ndarray, "*seeds"]


def sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Of every weight."""
    d, n = shape.d_model, shape.layers
    heads, mlp = (n, shape.heads, d, shape.d_head), (n, d, shape.neurons)
    return {
        "E_slope": (d,),
        "E_number": (d,),
        "E_sep": (d,),
        "P": (shape.rows, d),
        "W_Q": heads,
        "W_K": heads,
        "W_V": heads,
        "W_O": (n, shape.heads, shape.d_head, d),
        "W_in": mlp,
        "b_in": (n, shape.neurons),
        "W_out": (n, shape.neurons, d),
        "norm_scale": (shape.norms, d),
        "norm_shift": (shape.norms, d),
        "W_U": (d,),
        "b_U": (),
    }


def _spreads(shape: Shape) -> dict[str, float]:
    """Standard deviations of initial values; what is not named starts at 0.

    Inputs of variance 1 give outputs of variance 1; what is added to the stream is scaled by
    1/sqrt(2 layers), as in GPT-2, so that the stream keeps its size.
    """
    inward, residual = 1 / math.sqrt(shape.d_model), 1 / math.sqrt(2 * shape.layers)
    reads = dict.fromkeys(("W_Q", "W_K", "W_V", "W_U"), inward)
    embeds = dict.fromkeys(("E_slope", "E_number", "E_sep"), 1.0)
    writes = {"W_O": inward * residual, "W_out": residual / math.sqrt(shape.d_mlp)}
    return {**embeds, **reads, **writes, "P": 0.1, "W_in": math.sqrt(2) * inward}


def initial_weights(shape: Shape, key: Key[Array, ""]) -> Weights:
    """One seed's start: Gaussian of the usual scales, norms at one, biases at zero."""
    wanted, spreads = sizes(shape), _spreads(shape)
    counts = [math.prod(size) for size in wanted.values()]
    # One draw cut into pieces: a draw for each weight would take ten times as long to compile.
    drawn = jnp.split(jax.random.normal(key, (sum(counts),)), np.cumsum(counts)[:-1])
    weights = {
        name: spreads.get(name, 0.0) * piece.reshape(size)
        for (name, size), piece in zip(wanted.items(), drawn, strict=True)
    }
    return Weights(**weights)._replace(norm_scale=jnp.ones(wanted["norm_scale"]))
