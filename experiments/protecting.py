"""What `protect` compresses and measures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from bridge import sink_tokens
from bridge.compress import compress
from bridge.compression import restore
from bridge.method import Method
from bridge.methods.oats import OATS
from bridge.methods.wanda import Wanda
from bridge.patterns import RowWise, exact
from bridge.protected import Protected
from bridge.sink_tokens import FIRST, LATER, ORDINARY
from experiments import measure, recalls, tags_kept
from experiments.intervals import interval
from experiments.measure import Material
from experiments.progress import Progress
from experiments.protect import CONTROLS, PLAIN, Config, Gain, Result, Row, line, verdict
from experiments.recalls import Ratio, Ratios
from experiments.tags_kept import Tagged
from mech.capture import capture_blocks
from mech.load import Loaded
from mech.probes import massive, outliers, sinks


class Seen(NamedTuple):
    """One model on the held-out text."""

    nll: Float[np.ndarray, " windows"]
    counts: Ratios
    tags: Ratio


@dataclass(frozen=True)
class Work:
    """What all the models share."""

    config: Config
    model: PreTrainedModel
    material: Material
    batches: Sequence[Int[Tensor, "_batch _seq"]]
    labels: Sequence[Int[Tensor, "_batch _seq"]]
    names: list[str]
    nll: Float[np.ndarray, " windows"]
    dense: Tagged
    progress: Progress


def answer(config: Config, loaded: Loaded, material: Material, progress: Progress) -> Result:
    """Everything, for a model that is loaded."""
    model = loaded.model
    batches = material.calibration.split(measure.AT_ONCE)
    with progress.task("sinks of the calibration text", 1) as advance:
        labels = sink_tokens.sink_labels(model, batches)
        dims = outlier_features(model, batches[0][:1]) if "rows" in config.ways else []
        advance("told")
    names = tags_kept.outputs(model)
    with progress.task("dense", _steps(material)) as advance:
        nll = measure.window_losses(model, material.evaluation, material.bos_id, advance)
        dense = tags_kept.tagged(model, names, material.sequences, None, advance)
    work = Work(config, model, material, batches, labels, names, nll, dense, progress)
    chosen = {base: chosen_factor(work, base) for base in config.bases if "weighted" in config.ways}
    rows, gains = [], []
    for sparsity in config.sparsities:
        for base in config.bases:
            all_seen: dict[str, Seen] = {}
            for way in (PLAIN, *config.ways):
                factor = chosen[base] if way == "weighted" else None
                method = _method(work, base, way, sparsity, dims)
                seen, density = _compressed(work, f"{base} {sparsity:g} {way}", method, factor)
                rows.append(_row(work, sparsity, base, way, density, factor, seen))
                all_seen[way] = seen
                progress.say(line(rows[-1]))
            for way, other in compared(config.ways):
                gains.append(_gain(sparsity, base, way, other, all_seen))
                progress.say(verdict(gains[-1]))
    flat = np.concatenate([label.numpy().ravel() for label in labels])
    counted = np.bincount(flat, minlength=len(sink_tokens.KINDS))
    tokens = dict(zip(sink_tokens.KINDS, map(int, counted), strict=True))
    ppl = float(np.exp(nll.mean()))
    return Result(config, material.inputs, ppl, tokens, dims, chosen, rows, gains)


def compared(ways: Sequence[str]) -> list[tuple[str, str]]:
    """Every way with the plain method; then those that know the sinks with those that do not."""
    aware = [way for way in ways if way not in CONTROLS]
    controls = [way for way in ways if way in CONTROLS]
    return [(way, PLAIN) for way in ways] + [(a, c) for a in aware for c in controls]


def outlier_features(model: PreTrainedModel, ids: Int[Tensor, "sequences seq"]) -> list[int]:
    """Dimensions that are outlier features of the stream after at least half of the blocks.

    Over tokens without a massive activation, so that a few of those do not pass for a feature.
    """

    def read(block: Any) -> np.ndarray:
        resid = block.resid_post[None]
        ordinary = np.logical_not(massive.is_massive(resid).any(axis=-1))
        return outliers.outlier_dims(resid, np.asarray(ordinary))[0]

    flags = np.stack(capture_blocks(model, ids, read))
    return np.flatnonzero(outliers.consistent(flags)).tolist()


def plain_method(base: str, sparsity: float) -> Method:
    """Wanda or OATS that removes this share."""
    if base == "wanda":
        return Wanda(RowWise(float(1 - exact(sparsity))))
    return OATS(compression=sparsity)


def chosen_factor(work: Work, base: str) -> float:
    """The weight whose model has the lowest loss on the last third of the calibration windows.

    At the highest sparsity, calibrated on the other two thirds; held-out text is not looked at.
    Of one weight there is nothing to choose.
    """
    if len(work.config.factors) == 1:
        return work.config.factors[0]
    windows, labels = work.material.calibration, [one for g in work.labels for one in g]
    some = max(2 * len(windows) // 3, 1)
    batches = windows[:some].split(measure.AT_ONCE)
    kept = [label[None] for label in labels[:some]]
    method = plain_method(base, max(work.config.sparsities))
    losses = {}
    for factor in work.config.factors:
        weights = sink_tokens.weights(kept, factor)
        done = compress(
            work.model, method, [one[None] for b in batches for one in b], token_weights=weights
        )
        with work.progress.task(f"{base}, {factor:g} times", len(windows) - some) as advance:
            losses[factor] = measure.window_losses(
                work.model, windows[some:], work.material.bos_id, advance
            ).mean()
        restore(work.model, done)
    return min(losses, key=lambda factor: losses[factor])


def _method(work: Work, base: str, way: str, sparsity: float, dims: list[int]) -> Any:
    plain = plain_method(base, sparsity)
    groups = {"mean": (ORDINARY,), "sinks": (FIRST, LATER)}.get(way, (ORDINARY, FIRST, LATER))
    if way in (PLAIN, "weighted"):
        return plain
    return Protected(
        plain,
        work.labels,
        groups=groups,
        rows=tuple(dims) if way == "rows" else (),
        random=work.config.seed if way == "random" else None,
    )


def _compressed(work: Work, name: str, method: Any, factor: float | None) -> tuple[Seen, float]:
    weights = None if factor is None else sink_tokens.weights(work.labels, factor)
    with work.progress.task(f"compress: {name}") as advance:
        done = compress(
            work.model, method, work.batches, token_weights=weights, advance=lambda _: advance("")
        )
    try:
        return _seen(work, name), done.density
    finally:
        restore(work.model, done)


def _seen(work: Work, name: str) -> Seen:
    material = work.material
    with work.progress.task(f"measure: {name}", _steps(material)) as advance:
        nll = measure.window_losses(work.model, material.evaluation, material.bos_id, advance)
        changed = tags_kept.tagged(
            work.model, work.names, material.sequences, work.dense.where, advance
        )
    found, dense = (sinks.sinks(t.scores, measure.EPSILON) for t in (changed, work.dense))
    return Seen(nll, recalls.ratios(found, dense), tags_kept.tags_kept(changed, work.dense))


def _steps(material: Material) -> int:
    return len(material.evaluation) + len(material.sequences.split(measure.AT_ONCE))


def _row(
    work: Work,
    sparsity: float,
    base: str,
    way: str,
    density: float,
    factor: float | None,
    seen: Seen,
) -> Row:
    return Row(
        sparsity=sparsity,
        base=base,
        way=way,
        density=density,
        factor=factor,
        # A broken model's loss can be past what exp holds.
        ppl=float(np.exp(min(seen.nll.mean(), 700.0))),
        nll=interval(seen.nll - work.nll),
        kept=recalls.recalls(seen.counts),
        tags=recalls.share(seen.tags),
    )


def _gain(sparsity: float, base: str, way: str, other: str, all_seen: Mapping[str, Seen]) -> Gain:
    seen, plain = all_seen[way], all_seen[other]
    return Gain(
        sparsity,
        base,
        way,
        interval(seen.nll - plain.nll),
        recalls.difference(plain.counts.later_recall, seen.counts.later_recall),
        recalls.difference(plain.counts.later_precision, seen.counts.later_precision),
        recalls.difference(plain.tags, seen.tags),
        other,
    )
