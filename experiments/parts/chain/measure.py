"""Every link of the chain, read from one model under every trial, sequence by sequence."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from bridge.operators import LinearOperator
from bridge.toggle import swap
from experiments.measure import EPSILON
from experiments.parts.chain.links import Aim, Trial, changes
from experiments.parts.chain.one_pass import Dense, Look, Passed, batches, changed_pass, dense_pass
from experiments.probing import readout
from experiments.progress import Advance
from mech.errors import BadInput
from mech.probes import agreement, catch, sinks
from mech.probes.clusters import adjusted_rand, kmeans
from mech.reach import Sinks

AT_ONCE = 4  # sequences in one pass
LEAST = 0.3  # share of a query's attention below which no sink has caught it
DENSE = Trial("dense", "untouched")

Values = dict[str, Float[np.ndarray, " unit"]]
"""By what is measured, one value a sequence; NaN where the dense model has nothing to measure."""
Operators = Mapping[str, Mapping[str, LinearOperator]]
"""By the name that a trial's `weights` has, the operators that stand in for linears."""


class Units(NamedTuple):
    """Sequences of one kind: their sinks, the first token among them, and random other tokens.

    outcome: from a pass over some rows, what the chain ends in, by name. segments: whether heads'
    groups and segments are read here too. blocks: whose streams the outcome is read from.
    """

    name: str
    ids: Int[Tensor, "unit seq"]
    sinks: Sinks
    random: Sinks
    outcome: Callable[[Passed, slice], Values]
    segments: bool = False
    blocks: tuple[int, ...] = ()


class _Read(NamedTuple):
    """What is kept of a batch until all are done: values, and the stream for the straight line."""

    values: Values
    stream: Float[np.ndarray, "batch seq d_model"] | None


class _Labels(NamedTuple):
    """By place, each query's sink as a number of its sequence's list; -1: none, or a sink."""

    each: list[list[Int[np.ndarray, " seq"]]]
    where: Float[np.ndarray, "layer batch head key"]


def measured(
    model: PreTrainedModel,
    units: Units,
    aim: Aim,
    trials: Sequence[Trial],
    operators: Operators,
    advance: Advance,
    seed: int = 0,
) -> dict[str, Values]:
    """By trial, every link: sinks, outliers, with `segments` tags and segments, then the outcome.

    sinks: share of the dense model's (layer, head, token) sinks that is left, first tokens and
    guarded later ones. outliers: its massive numbers, h / h° in [0, 1]. tags: ARI of k-means on the
    outputs of `aim.places` with the dense model's groups, mean over places. segments: balanced
    accuracy of a straight line in the stream, fitted on other sequences of the same model. A trial
    that a head has no room for (random directions) is left out.
    """
    look = Look(aim.places, (aim.blocks[0], *units.blocks)) if units.segments else Look()
    found: dict[str, list[_Read]] = {trial.key: [] for trial in (DENSE, *trials)}
    late: list[np.ndarray] = []
    for rows in batches(len(units.ids), AT_ONCE):
        ids, named, random = units.ids[rows], units.sinks[rows], units.random[rows]
        passed, dense = dense_pass(model, ids, named, random, look)
        labels = _labels(passed, dense, named, aim)
        if units.segments:
            late += labelled(passed, dense, named, aim)
        found[DENSE.key].append(_read(passed, labels, units, aim, rows))
        advance("dense")
        for trial in trials:
            with swap(model, operators[trial.weights]) if trial.weights else nullcontext():
                try:
                    changed = changes(trial, aim, named, random, dense, seed)
                    after = changed_pass(model, ids, changed, look, dense)
                except BadInput:
                    found.pop(trial.key, None)
                    continue
            if trial.key in found:
                found[trial.key].append(_read(after, labels, units, aim, rows))
            advance(trial.key)
    return {key: _joined(reads, late, units) for key, reads in found.items()}


def steps(units: Units, trials: Sequence[Trial]) -> int:
    """How often `measured` advances, where a head has room for every trial."""
    return len(batches(len(units.ids), AT_ONCE)) * (1 + len(trials))


def labelled(passed: Passed, dense: Dense, named: Sinks, aim: Aim) -> list[Int[np.ndarray, " seq"]]:
    """By sequence: 1 for tokens that a later sink of the first place caught, 0 for the first
    token's, -1 for others."""
    each = _labels(passed, dense, named, aim).each[0]
    return [_late(labels, row) for labels, row in zip(each, named, strict=True)]


def _labels(passed: Passed, dense: Dense, named: Sinks, aim: Aim) -> _Labels:
    each = []
    for layer, head in aim.places:
        weight = dense.sinks.weight[layer][:, head].float().cpu().numpy()
        each.append([_caught(weight[row, :, : len(at)], at) for row, at in enumerate(named)])
    guarded = sinks.guarded(passed.alpha.shape[-1])
    guarded[0] = True
    return _Labels(each, (passed.alpha > EPSILON) & guarded)


def _caught(weight: Float[np.ndarray, "seq sink"], at: Sequence[int]) -> Int[np.ndarray, " seq"]:
    labels = catch.caught_by(weight, np.arange(len(at)), least=LEAST)
    labels[list(at)] = -1
    return labels


def _late(labels: Int[np.ndarray, " seq"], at: Sequence[int]) -> Int[np.ndarray, " seq"]:
    """1 for tokens that a later sink caught, 0 for the first token's, -1 for others."""
    first = at.index(0) if 0 in at else -2
    return np.where(labels < 0, -1, (labels != first).astype(np.int64))


def _read(passed: Passed, labels: _Labels, units: Units, aim: Aim, rows: slice) -> _Read:
    whole = labels.where.sum(axis=(0, 2, 3))
    both = (labels.where & (passed.alpha > EPSILON)).sum(axis=(0, 2, 3))
    values = {"sinks": _over(both, whole), "outliers": passed.size}
    stream = None
    if units.segments:
        count = len(whole)
        grouped = [
            [_ari(passed.z[place][row], labels.each[i][row]) for i, place in enumerate(aim.places)]
            for row in range(count)
        ]
        values["tags"] = _means(np.array(grouped))
        stream = passed.streams[aim.blocks[0]]
    return _Read(values | units.outcome(passed, rows), stream)


def _ari(z: Float[np.ndarray, "seq d_head"], labels: Int[np.ndarray, " seq"]) -> float:
    kept = agreement.usable(labels)
    if kept is None:
        return float("nan")
    labels = labels[kept]
    return adjusted_rand(kmeans(z[kept], len(np.unique(labels))), labels)


def _joined(reads: Sequence[_Read], late: Sequence[np.ndarray], units: Units) -> Values:
    values = {
        name: np.concatenate([read.values[name] for read in reads]).astype(np.float64)
        for name in reads[0].values
    }
    if units.segments:
        stream = np.concatenate([read.stream for read in reads if read.stream is not None])
        values["segments"] = _line(stream, late)
    return values


def _line(
    stream: Float[np.ndarray, "unit seq d_model"], late: Sequence[np.ndarray]
) -> Float[np.ndarray, " unit"]:
    """Balanced accuracy of the straight line of `readout`, NaN for sequences without both kinds."""
    kept = [i for i, each in enumerate(late) if {0, 1} <= {*each.tolist()}]
    found = np.full(len(late), np.nan)
    if len(kept) > 1:
        features = [stream[i, late[i] >= 0] for i in kept]
        found[kept] = readout.accuracies(features, [late[i][late[i] >= 0] for i in kept])
    return found


def _over(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _means(table: Float[np.ndarray, "unit place"]) -> Float[np.ndarray, " unit"]:
    """Means over the places that have a number."""
    there = ~np.isnan(table)
    return _over(np.where(there, table, 0).sum(axis=1), there.sum(axis=1))
