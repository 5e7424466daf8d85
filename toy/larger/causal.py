"""What breaks a seed: attention, directions and MLPs that are removed, each beside its control."""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from toy.larger.edit import Edit, no_edit
from toy.larger.observe import Places, forward, fvu, places, tag
from toy.larger.shape import Shape
from toy.larger.weights import Weights
from toy.tasks import Batch
from toy.transformer import ToyTrace

CONTROLS = 8
"""Random directions beside the tag, and random tokens beside [SEP]."""


class Effects(NamedTuple):
    """Fraction of variance unexplained after each change of one seed. Controls: `other_*`.

    Directions are those of the stream after layer 1; the random ones are orthogonal to the tag.
    """

    untouched: float
    cut_sep: Float[np.ndarray, "layer head"]  # later tokens may not look at [SEP] in this head
    cut_catch: float  # ... in all heads of layer 1
    other_token: Float[np.ndarray, " control"]  # ... at a random other token instead
    flat: float  # attention of layer 1 is uniform
    erased: float  # the coordinate along the tag is made constant
    other_erased: Float[np.ndarray, " control"]  # along a random direction instead
    swapped: float  # numbers before [SEP] get the tag, those after it lose it: against the mean
    # of the numbers that now have it
    other_swapped: Float[np.ndarray, " control"]  # random vectors of its length, same target
    mute: float  # layer 1's MLP writes its mean; unchanged where there is none
    blind_sep: float  # [SEP] itself sees nothing before it in layer 1


def effects(shape: Shape, weights: Weights, batch: Batch, *, seed: int = 0) -> Effects:
    """Every change in turn, on the same sequences."""
    generator = np.random.default_rng(seed)
    at, nothing = places(batch), no_edit(shape, *batch.x.shape)
    _, left = forward(shape, weights, batch)
    vector = tag(left.resid[1], at).vector
    randoms = _orthogonal(generator, vector)
    broken = partial(fvu, shape, weights, batch)
    cutting = partial(_cutting, nothing)
    to_sep = _cut(at, at.sep)
    tagged = batch._replace(target=jnp.asarray(_mean_of_tagged(at, batch)))

    def swapped(vector: Float[np.ndarray, " d_model"]) -> float:
        moved = nothing._replace(shift=_swap(at, batch, vector))
        return fvu(shape, weights, tagged, moved)

    return Effects(
        untouched=broken(nothing),
        cut_sep=np.array(
            [
                [broken(cutting(layer, [head], to_sep)) for head in range(shape.heads)]
                for layer in range(shape.layers)
            ]
        ),
        cut_catch=broken(cutting(0, range(shape.heads), to_sep)),
        other_token=np.array(
            [
                broken(cutting(0, range(shape.heads), _cut(at, _others(batch, generator))))
                for _ in range(CONTROLS)
            ]
        ),
        flat=broken(nothing._replace(flat=np.arange(shape.layers) == 0)),
        erased=broken(nothing._replace(shift=_erase(left, at, vector))),
        other_erased=np.array(
            [broken(nothing._replace(shift=_erase(left, at, other))) for other in randoms]
        ),
        swapped=swapped(vector),
        other_swapped=np.array([swapped(other) for other in randoms]),
        mute=broken(_mute(nothing, weights, left, at)),
        blind_sep=broken(
            cutting(0, range(shape.heads), at.sep[:, :, None] & at.before[:, None, :])
        ),
    )


def _cutting(
    nothing: Edit, layer: int, heads: Iterable[int], cut: Bool[np.ndarray, "batch query key"]
) -> Edit:
    mask = np.array(nothing.cut)
    mask[layer][:, list(heads)] = cut[:, None]
    return nothing._replace(cut=mask)


def _cut(at: Places, keys: Bool[np.ndarray, "batch seq"]) -> Bool[np.ndarray, "batch query key"]:
    """Queries after [SEP] lose these keys, except themselves."""
    itself = np.eye(keys.shape[1], dtype=bool)[None]
    return at.after[:, :, None] & keys[:, None, :] & ~itself


def _others(batch: Batch, generator: np.random.Generator) -> Bool[np.ndarray, "batch seq"]:
    """One random number of each sequence, before or after [SEP]."""
    t, last = np.asarray(batch.t), np.asarray(batch.last)
    drawn = generator.integers(1, last)
    chosen = drawn + (drawn >= t)  # uniform over 1..last without t
    return np.arange(1, batch.x.shape[1] + 1)[None] == chosen[:, None]


def _orthogonal(
    generator: np.random.Generator, vector: Float[np.ndarray, " d_model"]
) -> Float[np.ndarray, "control d_model"]:
    """Random directions orthogonal to the vector, and of its length.

    Without the first, each would hold some of the tag itself: 1/sqrt(d_model) of its length.
    """
    drawn = generator.standard_normal((CONTROLS, len(vector)))
    size = np.linalg.norm(vector)
    if size > 0:
        drawn = drawn - np.outer(drawn @ vector, vector) / size**2
    return drawn * size / np.linalg.norm(drawn, axis=1, keepdims=True)


def _erase(
    left: ToyTrace, at: Places, vector: Float[np.ndarray, " d_model"]
) -> Float[np.ndarray, "batch seq d_model"]:
    """What moves every token's coordinate along the vector to the numbers' mean."""
    size = np.linalg.norm(vector)
    unit = (vector / size if size > 0 else vector).astype(left.resid.dtype)
    along = left.resid[1] @ unit
    return (along[at.before | at.after].mean() - along)[..., None] * unit


def _swap(
    at: Places, batch: Batch, vector: Float[np.ndarray, " d_model"]
) -> Float[np.ndarray, "batch seq d_model"]:
    """+vector before [SEP], -vector after it; the read-out keeps its own, for it must still ask."""
    readout = np.arange(1, batch.x.shape[1] + 1)[None] == np.asarray(batch.last)[:, None]
    sign = at.before.astype(np.float32) - (at.after & ~readout)
    return sign[..., None] * vector.astype(np.float32)


def _mean_of_tagged(at: Places, batch: Batch) -> Float[np.ndarray, " batch"]:
    """The mean of the numbers before [SEP] and of the read-out, which keeps its tag."""
    x, last = np.asarray(batch.x), np.asarray(batch.last)
    readout = np.take_along_axis(x, last[:, None] - 1, axis=1)[:, 0]
    count = at.before.sum(axis=1).astype(x.dtype) + 1
    return (np.where(at.before, x, 0.0).sum(axis=1) + readout) / count


def _mute(nothing: Edit, weights: Weights, left: ToyTrace, at: Places) -> Edit:
    """Layer 1's MLP writes the mean of what it writes at numbers."""
    heads = np.einsum("bhsd,hdm->bsm", left.z[0], weights.W_O[0])
    written = left.resid[1] - left.resid[0] - heads
    writes = np.array(nothing.writes)
    writes[0] = written[at.before | at.after].mean(axis=0)
    return nothing._replace(mute=np.arange(len(writes)) == 0, writes=writes)
