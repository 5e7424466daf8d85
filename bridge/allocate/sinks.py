"""Sink-aware budgets: the projections and blocks in which sinks are made keep more."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from bridge.allocate.apportion import spread_about
from bridge.component import components
from bridge.equal import shapes_of
from mech.capture import capture_blocks
from mech.probes import sinks
from mech.trace import BlockTrace


def sink_scores(
    model: PreTrainedModel, batches: Sequence[Int[Tensor, "_batch _seq"]]
) -> dict[str, float]:
    """How much each linear has to do with sinks, in [0, 1], by name; 0 for all that is not here.

    queries and keys: the sinks that the heads of the block have, first tokens (as a share of
    heads) and guarded later ones (as a share of the block that has most), the mean of both.
    MLP: the largest share of the stream's norm that its write brings to a sink token: sinks are
    made where a massive activation is written, and end where it is taken away, so both count.
    Values and outputs: 0. Raises BadInput as `components` and `capture_blocks` do.
    """
    attention, mlp = _read(model, batches)
    later = attention[:, 1] / max(float(attention[:, 1].max()), 1e-12)
    looked = (attention[:, 0] + later) / 2
    scores = {}
    for component in components(model):
        roles = ("q", "k") if component.kind == "attention" else tuple(component.names)
        by_layer = looked if component.kind == "attention" else mlp
        for role in roles:
            scores[component.names[role]] = float(by_layer[component.layer])
    return scores


def sink_aware(
    model: PreTrainedModel,
    batches: Sequence[Int[Tensor, "_batch _seq"]],
    total: int,
    *,
    spread: float = 0.08,
) -> dict[str, int]:
    """Densities S̄ + λ (2 score - 1) + s with `sink_scores`; Σ of the allowances is `total`.

    λ is `spread`. Raises BadInput as `sink_scores` and `apportion` do.
    """
    scores = sink_scores(model, batches)
    shapes = shapes_of(model)
    return spread_about(
        {name: scores.get(name, 0.0) for name in shapes},
        {name: linear.parameters for name, linear in shapes.items()},
        total,
        spread,
    )


def _read(
    model: PreTrainedModel, batches: Sequence[Int[Tensor, "_batch _seq"]]
) -> tuple[Float[np.ndarray, "layer 2"], Float[np.ndarray, " layer"]]:
    """By layer: first and later sinks a head and sequence; what the MLP brings to sink tokens."""
    alphas: list[list[np.ndarray]] = []
    writes: list[list[np.ndarray]] = []
    for tokens in batches:
        alpha, write = zip(*capture_blocks(model, torch.as_tensor(tokens), _block), strict=True)
        alphas.append(list(alpha))
        writes.append(list(write))
    found = sinks.sinks(np.stack([np.concatenate(layer) for layer in zip(*alphas, strict=True)]))
    written = np.stack([np.concatenate(layer) for layer in zip(*writes, strict=True)])
    allowed = sinks.guarded(found.shape[-1])
    first = found[..., 0].mean(axis=(1, 2))
    later = found[..., allowed].sum(axis=-1).mean(axis=(1, 2))
    # A sink token: the first, and any guarded one that is a sink of more heads than a block has.
    heads = found.sum(axis=(0, 2)) >= found.shape[2]
    token = heads & allowed
    token[:, 0] = True
    mlp = np.array([layer[token].mean() for layer in written])
    return np.stack([first, later], axis=1), mlp / max(float(mlp.max()), 1e-12)


def _block(block: BlockTrace) -> tuple[np.ndarray, np.ndarray]:
    """α, and ‖MLP's write‖ over the larger of the stream's norms before and after it."""
    alpha = sinks.score(block.received, block.reach)
    if block.mlp_write is None:
        return alpha, np.zeros(block.resid_post.shape[:2])
    before, after, write = (
        np.linalg.norm(x, axis=-1) for x in (block.resid_pre, block.resid_post, block.mlp_write)
    )
    return alpha, write / np.maximum(np.maximum(before, after), 1e-12)
