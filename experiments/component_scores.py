"""How far attention scores and heads' writes move, layer by layer, on two halves of a text.

The closed forms are in the distribution of one text, with queries and keys of independent tokens;
beside it stand another text and, for rotary pairs, the model's own causal scores.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from bridge.component import Component, components
from bridge.methods.a3 import A3
from bridge.methods.a3_forms import best_units, joint, unit_scores
from bridge.methods.a3_heads import Grams, Heads, heads_of, output_gram, rotary_units, white_grams
from experiments.progress import Advance
from mech.capture import capture_blocks
from mech.trace import BlockTrace

Windows = Int[Tensor, "windows seq"]
A3_NAME, WEIGHTS, RANDOM = "A3", "weights alone", "random"
NAMES = (A3_NAME, WEIGHTS, RANDOM)


class Errors(NamedTuple):
    """Relative errors √(E Δ² / E s²), each on the text fitted to and on the other one.

    svd: of scores before rotation, tokens independent, for the joint SVD. pairs: of the model's
    own causal scores, for rotary pairs. ov: of what the heads write, E‖z (I - LMᵀ) W_o‖².
    """

    svd: tuple[float, float]
    pairs: tuple[float, float] | None
    ov: tuple[float, float]


class LayerErrors(NamedTuple):
    """One layer; `found` by name: A3, and its controls with the same budget."""

    layer: int
    found: dict[str, Errors]


class _Seen(NamedTuple):
    """Of one attention on one text: A3's own moments, and z zᵀ of every query head."""

    grams: Grams
    z: Float[Tensor, "head d_head d_head"]


def layer_errors(
    model: PreTrainedModel,
    fitted: Windows,
    other: Windows,
    *,
    compression: float,
    seed: int,
    advance: Advance,
) -> list[LayerErrors]:
    """Every attention of the model, which stays dense, at ⌊(1-ρ) d_head⌋ coordinates a head."""
    attentions = [c for c in components(model) if c.kind == "attention"]
    seen = [_seen(model, attentions, text) for text in (fitted, other)]
    advance("moments")
    chosen = [
        {name: _pairs(c, on.grams, name, compression, seed) for name in NAMES}
        for c, on in zip(attentions, seen[0], strict=True)
    ]
    causal = [_causal(model, chosen, text) for text in (fitted[:4], other[:4])]
    advance("causal scores")
    found = []
    for i, attention in enumerate(attentions):
        here = (seen[0][i], seen[1][i])
        maps = {name: _maps(attention, here[0].grams, name, compression, seed) for name in NAMES}
        errors = {
            name: Errors(
                _both(lambda on, m=maps[name]: _score_error(on.grams, *m.qk), here),
                None if chosen[i][name] is None else (causal[0][i][name], causal[1][i][name]),
                _both(lambda on, m=maps[name], a=attention: _write_error(a, on.z, *m.ov), here),
            )
            for name in NAMES
        }
        found.append(LayerErrors(attention.layer, errors))
    return found


class _Maps(NamedTuple):
    qk: tuple[Tensor, Tensor]
    ov: tuple[Tensor, Tensor]


def _maps(attention: Component, on: Grams, name: str, compression: float, seed: int) -> _Maps:
    heads = heads_of(attention)
    keep = int((1 - compression) * heads.d_head)
    if name == RANDOM:
        generator = torch.Generator().manual_seed(seed + attention.layer)
        order = torch.stack(
            [torch.randperm(heads.d_head, generator=generator) for _ in range(heads.n_kv_heads)]
        )
        some = nn.functional.one_hot(order[:, :keep], heads.d_head).mT.double()
        return _Maps((some, some), (some, some))
    grams = on if name == A3_NAME else white_grams(attention.linears, heads)
    qk = joint(grams.query, grams.key, keep)
    ov = joint(grams.value, output_gram(attention.linears["o"], heads), keep)
    return _Maps((qk.left, qk.right), (ov.left, ov.right))


def _pairs(
    attention: Component, on: Grams, name: str, compression: float, seed: int
) -> Float[Tensor, "kv_head d_head"] | None:
    """1 where a coordinate of a key head is dropped; None where nothing is rotated."""
    of = rotary_units(attention)
    if of is None:
        return None
    heads = heads_of(attention)
    grams = on if name == A3_NAME else white_grams(attention.linears, heads)
    query, key = (gram.diagonal(dim1=-2, dim2=-1) for gram in (grams.query, grams.key))
    scores = unit_scores(query, key, of)
    if name == RANDOM:
        generator = torch.Generator().manual_seed(seed + attention.layer)
        scores = torch.rand(scores.shape, generator=generator, dtype=torch.float64)
    keep = int((1 - compression) * heads.d_head / 2) * 2
    kept = torch.stack([best_units(row, of, keep) for row in scores])
    return torch.ones(heads.n_kv_heads, heads.d_head).scatter_(1, kept, 0)


def _seen(model: PreTrainedModel, attentions: Sequence[Component], text: Windows) -> list[_Seen]:
    z: dict[int, Tensor] = {}

    def mixed(layer: int, heads: Heads):
        def hook(_, args):
            z[layer] = z.get(layer, 0) + heads.gram(args[0].flatten(0, -2))

        return hook

    with ExitStack() as stack, torch.no_grad():
        states = [stack.enter_context(A3().watch(attention)) for attention in attentions]
        for attention in attentions:
            single = Heads(attention.n_heads, attention.d_head)
            hook = mixed(attention.layer, single)
            stack.callback(attention.linears["o"].register_forward_pre_hook(hook).remove)
        for window in text:
            model.base_model(window[None], use_cache=False)  # type: ignore[operator]
    return [
        _Seen(Grams(**state), z[attention.layer])
        for attention, state in zip(attentions, states, strict=True)
    ]


def _score_error(grams: Grams, left: Tensor, right: Tensor) -> float:
    """√(E (qᵀk - qᵀ L Mᵀ k)² / E (qᵀk)²), of independent tokens, over all heads together."""
    change = torch.eye(left.shape[1], dtype=torch.float64) - left @ right.mT
    error = (change.mT @ grams.query @ change) * grams.key
    return float((error.sum() / (grams.query * grams.key).sum()).sqrt())


def _write_error(attention: Component, z: Tensor, left: Tensor, right: Tensor) -> float:
    """√(Σ_h E‖z (I - L Mᵀ) W_o‖² / Σ_h E‖z W_o‖²), every query head with its own z."""
    group = attention.n_heads // attention.n_kv_heads
    change = torch.eye(left.shape[1], dtype=torch.float64) - left @ right.mT
    change = change.repeat_interleave(group, 0)
    single = Heads(attention.n_heads, attention.d_head)
    write = output_gram(attention.linears["o"], single)
    return float((((change.mT @ z @ change) * write).sum() / (z * write).sum()).sqrt())


def _causal(
    model: PreTrainedModel, dropped: Sequence[dict[str, Tensor | None]], text: Windows
) -> list[dict[str, float]]:
    """√(Σ Δ² / Σ s²) of the rotated scores that the model computes, over what a query can see.

    Rotation mixes the two coordinates of a pair and no others, so what is dropped of a score is
    the product of the dropped coordinates of the rotated query and key.
    """

    def read(block: BlockTrace) -> dict[str, float]:
        query, key = (torch.from_numpy(x) for x in (block.heads.query, block.heads.key))
        group = query.shape[1] // key.shape[1]
        key = key.repeat_interleave(group, 1)
        seq = torch.arange(query.shape[2])
        low, high = (torch.from_numpy(x)[..., None] for x in (block.heads.low, block.heads.high))
        seen = ((seq >= low) & (seq <= high))[:, None]

        def energy(mask: Tensor) -> float:
            scores = (query * mask.repeat_interleave(group, 0)[:, None].to(query)) @ key.mT
            return float(scores.square().where(seen, 0).sum())

        some = {name: mask for name, mask in dropped[block.layer].items() if mask is not None}
        whole = torch.ones(query.shape[1] // group, query.shape[-1])
        return {"": energy(whole)} | {name: energy(mask) for name, mask in some.items()}

    sums = [capture_blocks(model, window[None], read) for window in text]
    return [
        {
            name: sum(one[name] for one in layer) ** 0.5 / sum(one[""] for one in layer) ** 0.5
            for name in layer[0]
        }
        for layer in zip(*sums, strict=True)
    ]


def _both(error: Callable[[_Seen], float], seen: tuple[_Seen, _Seen]) -> tuple[float, float]:
    fitted, other = seen
    return error(fitted), error(other)
