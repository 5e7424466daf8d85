"""Reads and compresses a model for `pruning`: every variant's losses, sinks, tags and accounts."""

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bridge import allocate
from bridge.compress import compress
from bridge.compression import restore
from bridge.equal import Linear, same_budget, shapes_of, spread, total
from bridge.evaluate import definition
from bridge.methods.wanda import Wanda
from bridge.patterns import RowWise, exact
from experiments import measure, roster
from experiments.probing import pruned_tags
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.remembered import Found, remembered
from experiments.text import Half, read_text
from mech import tokens
from mech.capture import capture_blocks
from mech.load import Loaded
from mech.probes import sinks
from mech.trace import BlockTrace

if TYPE_CHECKING:
    from experiments.pruning import Config, Variant


SHARES = (0.15, 0.3, 0.4, 0.5, 0.65, 0.85)  # of a linear's parameters, where errors are measured


class Seen(NamedTuple):
    """One variant. nll, limit_nll: nats a token of each window. sinks: α > 0.1.

    tags: η², η² of contiguous segments, ARI, ARI with contiguous segments, of each head that tags
    on each sequence, NaN where the dense model's sinks catch no two groups. facts: the accounts.
    """

    nll: Float[np.ndarray, " windows"]
    limit_nll: Float[np.ndarray, " limit_windows"]
    sinks: Bool[np.ndarray, "layer sequences head key"]
    tags: Float[np.ndarray, "place sequences 4"]
    facts: dict[str, Any]


class Work(NamedTuple):
    """Everything that variants share."""

    config: "Config"
    loaded: Loaded
    inputs: Inputs
    calibration: Int[Tensor, "windows seq"]
    calibration_source: str
    windows: Int[Tensor, "windows seq"]
    limit_windows: Int[Tensor, "windows seq"] | None
    sequences: Int[Tensor, "sequences seq"]
    bos_id: int | None
    definition: str
    limit: int
    heads: int
    places: list[tuple[int, int]]
    labels: Int[np.ndarray, "place sequences key"]
    shapes: dict[str, Linear]


def prepared(config: "Config", progress: Progress) -> Work:
    """Load, cut windows, choose heads on some sequences and label the tokens of others.

    Raises:
        BadOption, BadInput: see `pruning.run`.
    """
    loaded = measure.loaded_model(config.reading, progress)
    amounts, limit = config.amounts, measure.longest(loaded.model)
    calibration, source, _ = _windows(
        loaded, config, "calibration", amounts.calibration_seq, amounts.calibration
    )
    windows, text, encoded = _windows(
        loaded, config, "evaluation", amounts.context, amounts.windows
    )
    long = None
    if amounts.limit_windows:
        long, *_ = _windows(loaded, config, "evaluation", limit, amounts.limit_windows)
    choosing, *_ = _windows(loaded, config, "calibration", amounts.seq, amounts.sequences)
    sequences, *_ = _windows(loaded, config, "evaluation", amounts.seq, amounts.sequences)
    bos_id = int(encoded.ids[0]) if encoded.bos else None
    progress.say(f"BOS: {encoded.decision}; first ids {windows[0, :4].tolist()}")
    words = definition(context=amounts.context, stride=amounts.context - encoded.bos, prefix=bos_id)
    progress.say(words)
    for name in config.methods:
        roster.build(name, config.budget)  # refused before the work
    groups = choosing.split(measure.AT_ONCE)
    with progress.task("heads that tag", 2 * len(groups)) as advance:
        scores = measure.sink_scores(loaded.model, choosing, advance)
        places = pruned_tags.choose(scores, measure.EPSILON, amounts.heads)
        labels = pruned_tags.labelled(loaded.model, sequences, places, measure.EPSILON, advance)
    return Work(
        config=config,
        loaded=loaded,
        inputs=measure.described(loaded, config.reading, encoded, text),
        calibration=calibration,
        calibration_source=source.source,
        windows=windows,
        limit_windows=long,
        sequences=sequences,
        bos_id=bos_id,
        definition=words,
        limit=limit,
        heads=scores.shape[0] * scores.shape[2],
        places=places,
        labels=labels,
        shapes=shapes_of(loaded.model),
    )


def _windows(
    loaded: Loaded, config: "Config", half: Half, seq: int, count: int
) -> tuple[Int[Tensor, "windows seq"], Any, tokens.Encoded]:
    other = config.calibration_text if half == "calibration" else None
    source = read_text(other or config.reading.text, half)
    # Tokenizing a whole half costs seconds; English has more than two characters a token.
    encoded = tokens.encode(
        loaded.tokenizer, source.text[: 16 * seq * count], bos=config.reading.bos
    )
    return tokens.windows(encoded, seq, count), source, encoded


def measured(work: Work, variant: "Variant", progress: Progress) -> Seen:
    """One variant, from the folder where it was measured before; the model is dense afterwards."""
    found = remembered(
        work.config.state, _key(work, variant), lambda: _measure(work, variant, progress)
    )
    arrays = found.arrays
    return Seen(
        nll=arrays["nll"],
        limit_nll=arrays["limit_nll"],
        sinks=arrays["sinks"].astype(bool),
        tags=arrays["tags"],
        facts=found.facts,
    )


def _key(work: Work, variant: "Variant") -> dict[str, Any]:
    """All that the numbers of a variant depend on, but for the code."""
    ids = {
        name: _sha256(getattr(work, name))
        for name in ("windows", "limit_windows", "sequences", "calibration")
    }
    if variant.method == "dense":
        del ids["calibration"]
    # The uniform one is not named: it is no allocation.
    allocated = {} if variant.allocation == "uniform" else {"allocation": variant.allocation}
    return allocated | {
        "model": work.inputs.model_sha256,
        "dtype": work.inputs.dtype,
        "method": repr(_template(work, variant)) if variant.sparsity else "dense",
        "sparsity": variant.sparsity,
        "measure": work.config.measure,
        "places": work.places,
        "ids": ids,
    }


def _sha256(ids: Tensor | None) -> str | None:
    from hashlib import sha256

    return None if ids is None else sha256(ids.numpy().tobytes()).hexdigest()[:16]


def methods(work: Work, variant: "Variant") -> dict[str, Any]:
    """What every linear is compressed by: no more spent in all than Wanda spends."""
    wanda = Wanda(RowWise(float(1 - exact(variant.sparsity))))
    template, reference = _template(work, variant), dict.fromkeys(work.shapes, wanda)
    if variant.allocation == "uniform":
        return same_budget(template, reference, work.shapes, measure=work.config.measure)
    whole = total(reference, work.shapes).kept
    return spread(template, work.shapes, _allowed(work, variant.allocation, template, whole))


def _template(work: Work, variant: "Variant") -> Any:
    """The open number is solved for: what the options say of it has no effect."""
    return roster.build(variant.method, work.config.budget)


def _allowed(work: Work, allocation: str, template: Any, whole: int) -> dict[str, int]:
    """Parameters that each linear may keep, `whole` in all."""
    model, batches = work.loaded.model, work.calibration.split(measure.AT_ONCE)
    if allocation == "owl":
        return allocate.owl(model, batches, whole)
    if allocation == "sinks":
        return allocate.sink_aware(model, batches, whole)
    found = allocate.curves(model, template, batches, shares=SHARES)
    return allocate.greedy(found, whole)


def _measure(work: Work, variant: "Variant", progress: Progress) -> Found:
    if variant.method == "dense":
        return _read(work, progress, "dense", {})
    name = f"{variant.name} {variant.sparsity:g}"
    chosen = methods(work, variant)
    begun = time.process_time()
    with progress.task(f"compress: {name}", len(chosen)) as advance:
        done = compress(
            work.loaded.model, chosen, work.calibration.split(measure.AT_ONCE), advance=advance
        )
    seconds = time.process_time() - begun
    errors = [row.error for row in done.rows]
    facts = {
        **done.cost._asdict(),
        "delta_w": done.delta_w,
        "error": sum(errors) / len(errors),
        "seconds": seconds,
        "notes": sorted({row.note for row in done.rows if row.note}),
    }
    try:
        return _read(work, progress, name, facts)
    finally:
        restore(work.loaded.model, done)


def _read(work: Work, progress: Progress, name: str, facts: dict[str, Any]) -> Found:
    model, groups = work.loaded.model, work.sequences.split(measure.AT_ONCE)
    long = work.limit_windows
    steps = len(work.windows) + (0 if long is None else len(long)) + len(groups)
    with progress.task(f"measure: {name}", steps) as advance:
        nll = measure.window_losses(model, work.windows, work.bos_id, advance)
        limit = np.empty(0)
        if long is not None:
            limit = measure.window_losses(model, long, work.bos_id, advance)
        flags, tagged = [], []
        for number, group in enumerate(groups):
            rows = slice(number * measure.AT_ONCE, number * measure.AT_ONCE + len(group))
            found, tags = _sinks_and_tags(work, group, work.labels[:, rows])
            flags.append(found)
            tagged.append(tags)
            advance("sinks and tags")
    arrays = {
        "nll": nll,
        "limit_nll": limit,
        "sinks": np.concatenate(flags, axis=1).astype(np.uint8),
        "tags": np.concatenate(tagged, axis=1),
    }
    return Found(arrays, facts)


def _sinks_and_tags(
    work: Work, ids: Int[Tensor, "sequences seq"], labels: Int[np.ndarray, "place sequences key"]
) -> tuple[Bool[np.ndarray, "layer sequences head key"], Float[np.ndarray, "place sequences 4"]]:
    """One pass over some sequences."""
    groups = np.full((len(work.places), len(ids), 4), np.nan)

    def read(block: BlockTrace) -> np.ndarray:
        for place, (layer, head) in enumerate(work.places):
            if layer == block.layer:
                groups[place] = pruned_tags.grouped(block.z[:, head], labels[place])
        return sinks.sinks(measure.block_score(block), measure.EPSILON)

    return np.stack(capture_blocks(work.loaded.model, ids, read)), groups
