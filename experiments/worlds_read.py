"""Four worlds in one form: every head's attention on the sink, its tag, and its two spectra.

In a toy the sink is [SEP]; in a language model it is the first token. Of head h with pattern A,
value rows v and sink s: mass = mean over the queries after s of A[q, s]; tag = mean over the
same of ‖A[q, s] v_s W_O‖ / ‖x_q‖, with x the stream that the layer reads, before its norm.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from experiments.progress import Advance
from mech.probes.spectra import product_spectrum

if TYPE_CHECKING:
    from mech.heads import HeadWeights
    from mech.load import Loaded
    from mech.trace import BlockTrace
    from toy.larger.train import Trained as TrainedLarger
    from toy.train import Trained
    from toy.transformer import ToyTrace, Weights

THEOREM = 40.0  # the tag's embedding scale: the error of the theorem is e^-40


class World(NamedTuple):
    """Every head of every unit. QK, OV: singular values; *_random: of Gaussian matrices.

    group: within which heads are compared (a layer of a language model, a seed of a toy).
    """

    name: str
    sink: str
    group: Int[np.ndarray, " head"]
    mass: Float[np.ndarray, " head"]
    tag: Float[np.ndarray, " head"]
    QK: Float[np.ndarray, "head k"]
    OV: Float[np.ndarray, "head k"]
    QK_random: Float[np.ndarray, "head k"]
    OV_random: Float[np.ndarray, "head k"]


class Read(NamedTuple):
    """The heads of one layer of one unit."""

    group: int
    mass: Float[np.ndarray, " head"]
    tag: Float[np.ndarray, " head"]
    W_Q: Float[np.ndarray, "head d_model d"]
    W_K: Float[np.ndarray, "head d_model d"]
    W_V: Float[np.ndarray, "head d_model d"]
    W_O: Float[np.ndarray, "head d d_model"]


def world(name: str, sink: str, layers: list[Read], seed: int) -> World:
    """The layers together, with a random matrix of the same shape beside every matrix."""
    generator = np.random.default_rng(seed)
    rows = []
    for read in layers:
        matrices = [w.astype(np.float64) for w in (read.W_Q, read.W_K, read.W_V, read.W_O.mT)]
        random = [generator.standard_normal(w.shape) for w in matrices]
        spectra = [product_spectrum(a, b) for q in (matrices, random) for a, b in (q[:2], q[2:])]
        rows.append((np.full(len(read.mass), read.group), read.mass, read.tag, *spectra))
    return World(name, sink, *(np.concatenate(column) for column in zip(*rows, strict=True)))


def theorem(seed: int) -> World:
    """The theorem's weights: nothing is learned, nothing varies but the numbers to average."""
    from toy.transformer import theorem_weights

    return world("toy, the theorem", "[SEP]", _toy(theorem_weights(THEOREM), 0, seed), seed)


def trained(result: "Trained", units: list[int], seed: int) -> World:
    """Seeds of the two-layer toy."""
    from toy.transformer import Weights

    seeds = [Weights(*(np.asarray(f, np.float64)[unit] for f in result.weights)) for unit in units]
    layers = [read for unit, w in enumerate(seeds) for read in _toy(w, unit, seed)]
    return world("toy, trained", "[SEP]", layers, seed)


def _toy(weights: "Weights", unit: int, seed: int) -> list[Read]:
    from toy.transformer import forward

    x, t = np.random.default_rng(seed).standard_normal((8, 70)), 23
    _, left = forward(weights, x, t)
    eye = np.eye(2)
    second = np.pad(weights.W_V2, ((0, 0), (0, 1)))  # its one value is written to coordinate 0
    layers = [
        (eye, eye, np.asarray(weights.W_V1), eye),
        (np.asarray(weights.W_Q2), np.asarray(weights.W_K2), second, eye),
    ]
    return [
        _read(left, left.resid[layer], layer, unit, t - 1, [w[None] for w in matrices])
        for layer, matrices in enumerate(layers)
    ]


def larger(result: "TrainedLarger", seed: int) -> World:
    """Seeds of the ordinary transformer: norm, positions, MLP."""
    from experiments.toy_larger import PLACE, PROBED, probing_batch
    from toy.larger.observe import forward
    from toy.larger.ranks import attention_input, gain
    from toy.larger.route import seed_of

    shape, layers = result.recipe.shape, []
    for unit in range(result.recipe.seeds):
        weights = seed_of(result.weights, unit)
        _, left = forward(shape, weights, probing_batch(result.recipe.seed, PROBED, PLACE))
        for layer in range(shape.layers):
            own = [np.asarray(w[layer], np.float64) for w in weights[4:8]]
            into = attention_input(shape, weights, layer, left)
            read = _read(left, into, layer, unit, PLACE - 1, own)
            scale = gain(shape, weights, layer)[:, None]
            folded = [_centred(scale * w) if shape.norm else w for w in own[:3]]
            W_Q, W_K, W_V = folded
            layers.append(read._replace(W_Q=W_Q, W_K=W_K, W_V=W_V))
    return world("toy, an ordinary transformer", "[SEP]", layers, seed)


def _centred(weight: np.ndarray) -> np.ndarray:
    """Without what reads the mean, which LayerNorm takes away."""
    return weight - weight.mean(axis=-2, keepdims=True)


def _read(
    left: "ToyTrace",
    into: np.ndarray,
    layer: int,
    group: int,
    sink: int,
    matrices: list[np.ndarray],
) -> Read:
    """A toy's layer; `into` is what its heads read."""
    W_Q, W_K, W_V, W_O = matrices
    written = np.einsum("bm,hmd,hdn->bhn", into[:, sink], W_V, W_O)
    on_sink = left.pattern[layer][:, :, sink + 1 :, sink]
    share = _share(on_sink, written, left.resid[layer][:, sink + 1 :])
    return Read(group, on_sink.mean(axis=(0, 2)), share, W_Q, W_K, W_V, W_O)


def _share(
    on_sink: Float[np.ndarray, "batch head query"],
    written: Float[np.ndarray, "batch head d_model"],
    stream: Float[np.ndarray, "batch query d_model"],
) -> Float[np.ndarray, " head"]:
    """Mean over queries of ‖A[q, s] v_s W_O‖ / ‖x_q‖."""
    lengths = np.linalg.norm(stream, axis=-1)[:, None]
    return (on_sink * np.linalg.norm(written, axis=-1)[..., None] / lengths).mean(axis=(0, 2))


def language_model(
    loaded: "Loaded",
    ids: Int[Tensor, "sequences seq"],
    at_once: int,
    advance: Advance,
    seed: int,
) -> World:
    """Every head of a language model; the group of a head is its layer."""
    from mech.capture import capture_blocks
    from mech.heads import head_weights

    def look(block: "BlockTrace") -> tuple[np.ndarray, np.ndarray]:
        return _block(block, head_weights(loaded.model, block.layer))

    seen = []
    for group in ids.split(at_once):
        seen.append(
            [len(group) * np.stack(pair) for pair in capture_blocks(loaded.model, group, look)]
        )
        advance("sinks")
    mass_and_tag = np.sum(seen, axis=0) / len(ids)
    layers = []
    for layer, (mass, tag) in enumerate(mass_and_tag):
        w = head_weights(loaded.model, layer, fold_norm=True)
        groups = len(w.W_Q) // len(w.W_K)
        W_K, W_V = (np.repeat(matrix, groups, axis=0) for matrix in (w.W_K, w.W_V))
        layers.append(Read(layer, mass, tag, w.W_Q, W_K, W_V, w.W_O))
    return world(loaded.name, "first token", layers, seed)


def _block(block: "BlockTrace", weights: "HeadWeights") -> tuple[np.ndarray, np.ndarray]:
    """Mass and tag of every head, means over this batch."""
    from mech.attention import pattern_columns

    on_sink = pattern_columns(block.heads, np.zeros(1, np.int64))[:, :, 1:, 0]
    value = block.heads.value[:, :, 0]
    value = np.repeat(value, len(weights.W_O) // value.shape[1], axis=1)
    written = np.einsum("bhd,hdm->bhm", value, weights.W_O)
    return on_sink.mean(axis=(0, 2)), _share(on_sink, written, block.resid_pre[:, 1:])
