"""Which measures of a head's weights measure the head, and which how its weights are written?

Two changes that leave the function of every head as it was, with G invertible and D diagonal:

    W_Q, W_K, W_V, W_O  ->  W_Q G, W_K G⁻ᵀ, W_V G, G⁻¹ W_O      a basis inside the head
    g, W_Q, W_K, W_V    ->  g D, D⁻¹ W_Q, D⁻¹ W_K, D⁻¹ W_V      the input norm's gain

(With rotary positions only a G that commutes with the rotations leaves W_Q and W_K's function
alone at every distance; the products are of distance 0, where any G does.)
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from mech.probes.spectra import effective_rank, product_spectrum

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONDITION = 30.0  # of G; D spreads as far


class Moved(NamedTuple):
    """The largest relative change of a measure, over all heads, by either change of gauge."""

    basis: float
    gain: float
    heads: int


class Gauge(NamedTuple):
    """One way to write a layer: matrices that read the normed stream, their norm's gain."""

    gain: Float[np.ndarray, " d_model"]
    W_Q: Float[np.ndarray, "head d_model d"]
    W_K: Float[np.ndarray, "head d_model d"]
    W_V: Float[np.ndarray, "head d_model d"]
    W_O: Float[np.ndarray, "head d d_model"]


def moved(model: "PreTrainedModel", seed: int) -> dict[str, Moved]:
    """Each measure on every head of `model`, before and after."""
    from mech.blocks import decoder_blocks

    generator = np.random.default_rng(seed)
    found: dict[str, list[tuple[np.ndarray, ...]]] = {}
    for layer in range(len(decoder_blocks(model))):
        plain = _of_layer(model, layer)
        versions = (plain, rebased(plain, generator), rescaled(plain, generator))
        measured = [_measures(version) for version in versions]
        for name in measured[0]:
            found.setdefault(name, []).append(tuple(each[name] for each in measured))
    return {name: _moved(rows) for name, rows in found.items()}


def rebased(gauge: Gauge, generator: np.random.Generator) -> Gauge:
    """Another basis inside every head."""
    heads, _, d = gauge.W_Q.shape
    bases = np.linalg.qr(generator.standard_normal((2, heads, d, d)))[0]
    spread = np.geomspace(1 / CONDITION, 1.0, d)
    G = bases[0] * spread @ bases[1]
    inverse = np.linalg.inv(G)
    return gauge._replace(
        W_Q=gauge.W_Q @ G, W_K=gauge.W_K @ inverse.mT, W_V=gauge.W_V @ G, W_O=inverse @ gauge.W_O
    )


def rescaled(gauge: Gauge, generator: np.random.Generator) -> Gauge:
    """The norm's gain and the weights that read through it share their scale otherwise."""
    scale = np.exp(generator.uniform(-np.log(CONDITION), 0.0, len(gauge.gain)))
    W_Q, W_K, W_V = (matrix / scale[:, None] for matrix in gauge[1:4])
    return Gauge(gauge.gain * scale, W_Q, W_K, W_V, gauge.W_O)


def _of_layer(model: "PreTrainedModel", layer: int) -> Gauge:
    from mech.heads import head_weights, input_gain

    plain = head_weights(model, layer)
    gain = input_gain(model, layer).astype(np.float64)
    groups = len(plain.W_Q) // len(plain.W_K)
    W_Q, W_O = plain.W_Q.astype(np.float64), plain.W_O.astype(np.float64)
    W_K, W_V = (np.repeat(w.astype(np.float64), groups, axis=0) for w in (plain.W_K, plain.W_V))
    return Gauge(gain, W_Q, W_K, W_V, W_O)


def _measures(gauge: Gauge) -> dict[str, Float[np.ndarray, " head"]]:
    gain = gauge.gain[:, None]
    W_Q, W_K, W_V = (gain * matrix for matrix in gauge[1:4])
    outward = gauge.W_O.mT
    return {
        "W_Q W_Kᵀ, gain included": effective_rank(product_spectrum(W_Q, W_K)),
        "W_V W_O, gain included": effective_rank(product_spectrum(W_V, outward)),
        "W_Q W_Kᵀ, gain left out": effective_rank(product_spectrum(gauge.W_Q, gauge.W_K)),
        "W_V W_O, gain left out": effective_rank(product_spectrum(gauge.W_V, outward)),
        "W_Q alone, gain included": effective_rank(np.linalg.svd(W_Q, compute_uv=False)),
        "W_O alone": effective_rank(np.linalg.svd(gauge.W_O, compute_uv=False)),
    }


def _moved(rows: list[tuple[np.ndarray, ...]]) -> Moved:
    plain, basis, gain = (np.concatenate(column) for column in zip(*rows, strict=True))
    changes = (float(np.abs(other / plain - 1).max()) for other in (basis, gain))
    return Moved(*changes, heads=len(plain))
