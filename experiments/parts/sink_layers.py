"""Sink heads of all layers, of those that cost least, and of random ones."""

from collections.abc import Mapping, Sequence

import numpy as np

from bridge.methods.sink_heads import BY, Head, SinkHeads
from experiments import component_variants
from experiments.parts.standing import each
from experiments.parts.work import Work
from experiments.progress import Progress

ALL, BEST, RANDOM = "all", "least cost", "random"
DRAWS = 100
JUDGED = 2
"""Calibration windows on which a layer's cost is taken."""


def chosen(
    work: Work, epsilon: float, k: int, seed: int, progress: Progress
) -> dict[str, tuple[Head, ...]]:
    """ALL the sink heads; about half of them in the layers of BEST, and as many of RANDOM.

    A layer costs what pruning its sink heads alone to k columns adds to the loss of a few
    calibration windows. Raises BadInput where no head keeps a first-token sink.
    """
    heads = component_variants.sinking(work.loaded.model, work.calibration, epsilon, progress)
    layers = sorted({layer for layer, _ in heads})
    alone = {str(layer): SinkHeads(_within(heads, [layer]), columns=k) for layer in layers}
    found = each(work, alone, work.calibration[:JUDGED], progress)
    cost = {layer: found[str(layer)].nll.mean() for layer in layers}
    by_cost = sorted(layers, key=lambda layer: cost[layer])
    best = half(heads, by_cost)
    return {ALL: heads, BEST: best, RANDOM: as_many(heads, layers, len(best), seed)}


def half(heads: Sequence[Head], layers: Sequence[int]) -> tuple[Head, ...]:
    """Heads of the first of these layers, until they are at least half of all."""
    found: tuple[Head, ...] = ()
    for i in range(len(layers)):
        found = _within(heads, layers[: i + 1])
        if 2 * len(found) >= len(heads):
            break
    return found


def as_many(
    heads: Sequence[Head], layers: Sequence[int], count: int, seed: int
) -> tuple[Head, ...]:
    """Heads of random layers, `count` of them or as near as DRAWS random orders come."""
    rng = np.random.default_rng(seed)
    near: tuple[Head, ...] = ()
    for _ in range(DRAWS):
        order = rng.permutation(len(layers))
        for i in range(len(layers)):
            found = _within(heads, [layers[j] for j in order[: i + 1]])
            if abs(len(found) - count) < abs(len(near) - count):
                near = found
        if len(near) == count:
            break
    return near


def methods(
    heads: Mapping[str, tuple[Head, ...]], columns: Sequence[int], k: int, seed: int
) -> dict[str, SinkHeads]:
    """Every number of columns and every way to choose them in all layers; k by BOS in some."""
    found = {
        f"{ALL}, k = {count}, {by}": SinkHeads(heads[ALL], columns=count, by=by, seed=seed)
        for count in columns
        for by in BY
    }
    for which in (BEST, RANDOM):
        found[f"{which}, k = {k}, bos"] = SinkHeads(heads[which], columns=k)
    return found


def _within(heads: Sequence[Head], layers: Sequence[int]) -> tuple[Head, ...]:
    return tuple(head for head in heads if head[0] in layers)
