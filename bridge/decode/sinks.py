"""Budgets and calibration that know the sinks: who is left out of a sample, who reads more."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedModel

from bridge.allocate.apportion import spread_about
from bridge.decode.plan import Plan, Setting
from bridge.equal import shapes_of
from bridge.sink_tokens import ORDINARY, sink_labels
from mech.capture import capture_blocks
from mech.probes.massive import RATIO, massive_entries


def sink_masks(
    model: PreTrainedModel, batches: Sequence[Int[Tensor, "_batch _seq"]]
) -> list[Bool[Tensor, "_batch _seq"]]:
    """True for the first token of a sequence and for later sinks: `exclude` of `calibrate`.

    Raises BadInput as `bridge.sink_tokens.sink_labels` does.
    """
    return [label != ORDINARY for label in sink_labels(model, batches)]


def scored_plan(
    model: PreTrainedModel, scores: Mapping[str, float], setting: Setting, *, spread: float = 0.08
) -> Plan:
    """`setting` with 1 - s_i = 1 - s + spread (2 score_i - 1) + shift: the same bytes in all.

    Scores in [0, 1] by linear, 0 where there is none. With `bridge.allocate.sinks.sink_scores`
    queries and keys of blocks with sinks, and the MLPs that write or erase massive activations,
    read more.
    """
    sizes = {name: linear.parameters for name, linear in shapes_of(model).items()}
    total = round((1 - setting.sparsity) * sum(sizes.values()))
    allowed = spread_about({n: scores.get(n, 0.0) for n in sizes}, sizes, total, spread)
    return {n: replace(setting, sparsity=1 - allowed[n] / sizes[n]) for n in sizes}


def shuffled(scores: Mapping[str, float], *, seed: int = 0) -> dict[str, float]:
    """The control: blocks change places, whole, so that every kind of linear keeps its scores."""
    blocks = sorted({int(name.split(".")[1]) for name in scores})
    order = np.random.default_rng(seed).permutation(blocks)
    there = dict(zip(blocks, map(int, order), strict=True))
    moved = {}
    for name in scores:
        head, block, rest = name.split(".", 2)
        moved[name] = scores.get(f"{head}.{there[int(block)]}.{rest}", 0.0)
    return moved


def massive_dims(
    model: PreTrainedModel, ids: Int[Tensor, "batch seq"], *, most: int = 4
) -> list[int]:
    """Dimensions of the stream with massive activations, those in most places first.

    Sun et al. 2024: |h| > 100 and at least 1000 times the median of its state.
    """
    found = capture_blocks(
        model, ids, lambda b: massive_entries(b.resid_post, b.real, RATIO)[0].sum(axis=(0, 1))
    )
    counts = torch.from_numpy(np.sum(found, axis=0))
    order = counts.argsort(descending=True, stable=True)[:most]
    return [int(dim) for dim in order if counts[dim] > 0]
