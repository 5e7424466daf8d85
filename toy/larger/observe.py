"""What one seed does, without touching it: error, sink, release, tag. Nothing here is causal."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from toy.larger.edit import Edit
from toy.larger.model import apply
from toy.larger.shape import Shape
from toy.larger.weights import Weights
from toy.tasks import Batch
from toy.transformer import Activations, ToyTrace

BEFORE, AT, AFTER = 0, 1, 2
"""Where a key stands relative to [SEP]."""


class Tag(NamedTuple):
    """How tokens after [SEP] differ from those before it, at one depth of the stream.

    vector = mean after - mean before. norm is its length over the root mean square length of a
    token's stream. share of the numbers' variance lies between the two groups (eta squared).
    separable is the chance that a linear score, fitted on half of the sequences, ranks a token
    after [SEP] above one before it in the other half: 1/2 says nothing, 1 is a flag. peak is the
    largest coordinate's part of |vector|^2: 1 for an outlier dimension, 1/d_model for none.
    after_over_before compares the root mean square lengths of the two groups.
    """

    vector: Float[np.ndarray, " d_model"]
    norm: float
    share: float
    separable: float
    peak: float
    after_over_before: float


class Seen(NamedTuple):
    """One seed on held-out sequences; attention is averaged over queries, then sequences."""

    fvu: float  # MSE / Var(target)
    sink: Float[np.ndarray, "layer head"]  # attention of tokens after [SEP] on it
    uniform_sink: float  # the same of a head that looks at all tokens alike
    readout: Float[np.ndarray, "layer head 3"]  # of the last token: on before, at, after [SEP]
    uniform_readout: Float[np.ndarray, " 3"]
    tags: tuple[Tag, ...]  # one a depth
    sep_over_number: float  # length of [SEP]'s embedding over the rms length of the numbers'


class Places(NamedTuple):
    """Which tokens of a padded batch stand where."""

    before: Bool[np.ndarray, "batch seq"]
    sep: Bool[np.ndarray, "batch seq"]
    after: Bool[np.ndarray, "batch seq"]


def places(batch: Batch) -> Places:
    """Numbers before [SEP], [SEP], numbers after it up to the read-out; padding is nowhere."""
    i = np.arange(1, batch.x.shape[1] + 1)[None]
    t, last = np.asarray(batch.t)[:, None], np.asarray(batch.last)[:, None]
    return Places(i < t, i == t, (i > t) & (i <= last))


@partial(jax.jit, static_argnums=0)
def _forward(
    shape: Shape, weights: Weights, batch: Batch, edit: Edit | None
) -> tuple[Float[Array, " batch"], Activations]:
    return apply(shape, weights, batch.x, batch.t, batch.last, edit)


def output(
    shape: Shape, weights: Weights, batch: Batch, edit: Edit | None = None
) -> Float[np.ndarray, " batch"]:
    """f of these sequences, with what the edit changes."""
    return np.asarray(_forward(shape, weights, batch, edit)[0])


def fvu(shape: Shape, weights: Weights, batch: Batch, edit: Edit | None = None) -> float:
    """E (f - m)^2 / Var(m) on these sequences, with what the edit changes."""
    target = np.asarray(batch.target)
    return float(np.square(output(shape, weights, batch, edit) - target).mean() / target.var())


def forward(
    shape: Shape, weights: Weights, batch: Batch
) -> tuple[Float[np.ndarray, " batch"], ToyTrace]:
    """The output and the trace of one seed, in the dtype of its weights."""
    f, activations = _forward(shape, weights, batch, None)
    return np.asarray(f), ToyTrace(*(np.asarray(field) for field in activations))


def observe(shape: Shape, weights: Weights, batch: Batch) -> Seen:
    """Everything of `Seen`."""
    f, left = forward(shape, weights, batch)
    at, m = places(batch), np.asarray(batch.target)
    sep_key = at.sep[None, :, None, None, :]
    on_sep = np.where(sep_key, left.pattern, 0.0).sum(axis=-1)  # layer batch head query
    after = at.after[None, :, None]
    rows = np.take_along_axis(
        left.pattern, np.asarray(batch.last)[None, :, None, None, None] - 1, axis=3
    )[:, :, :, 0]
    i = np.arange(1, batch.x.shape[1] + 1)
    lengths = np.linalg.norm(left.resid[0], axis=-1)
    return Seen(
        fvu=float(np.square(f - m).mean() / m.var()),
        sink=np.where(after, on_sep, 0.0).sum(axis=(1, 3)) / at.after.sum(),
        uniform_sink=float((at.after / i).sum() / at.after.sum()),
        readout=np.stack([(rows * p[None, :, None]).sum(-1).mean(1) for p in at], axis=-1),
        uniform_readout=np.array([(p.sum(axis=1) / np.asarray(batch.last)).mean() for p in at]),
        tags=tuple(tag(stream, at) for stream in left.resid),
        sep_over_number=float(_rms(lengths[at.sep]) / _rms(lengths[at.before | at.after])),
    )


def tag(stream: Float[np.ndarray, "batch seq d_model"], at: Places) -> Tag:
    """`Tag` of one depth."""
    stream = stream.astype(np.float64)
    before, after = stream[at.before], stream[at.after]
    vector = after.mean(axis=0) - before.mean(axis=0)
    both = np.concatenate([before, after])
    total = np.square(both - both.mean(axis=0)).sum()
    between = len(before) * len(after) / len(both) * (vector @ vector)
    return Tag(
        vector=vector,
        norm=float(np.linalg.norm(vector) / _rms(np.linalg.norm(both, axis=-1))),
        share=float(between / total) if total > 0 else 0.0,
        separable=_separable(stream, at),
        peak=float(np.square(vector).max() / (vector @ vector)) if vector.any() else 0.0,
        after_over_before=float(
            _rms(np.linalg.norm(after, axis=-1)) / _rms(np.linalg.norm(before, axis=-1))
        ),
    )


def _separable(stream: Float[np.ndarray, "batch seq d_model"], at: Places) -> float:
    """P(score after > score before) of Fisher's linear score; half fits it, half is scored."""
    half = len(stream) // 2
    before, after = stream[:half][at.before[:half]], stream[:half][at.after[:half]]
    spread = np.cov(before, rowvar=False) + np.cov(after, rowvar=False)
    # Numbers fill one line before layer 1: the floor keeps the other directions harmless.
    floor = 1e-6 * np.trace(spread) / len(spread) * np.eye(len(spread))
    score = stream[half:] @ np.linalg.solve(
        spread + floor, after.mean(axis=0) - before.mean(axis=0)
    )
    low, high = np.sort(score[at.before[half:]]), score[at.after[half:]]
    below = np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")
    return float(below.mean() / (2 * len(low)))


def _rms(values: Float[np.ndarray, " any"]) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))
