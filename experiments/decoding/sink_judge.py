"""What `sparse-sinks` fits, measures and compares."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from bridge.sink_tokens import KINDS
from experiments import measure, recalls
from experiments.decoding.gates import gated
from experiments.decoding.sink_fit import ALLOCATED, Work, asked, prepared, shifts, spending
from experiments.decoding.sink_read import Looks, Seen, look, seen
from experiments.decoding.sinks import (
    CONTROL_OF,
    PLAIN,
    Config,
    Gain,
    Result,
    Row,
    Variant,
    variants,
)
from experiments.intervals import interval
from experiments.progress import Progress
from experiments.recalls import Ratio, Recalls
from experiments.remembered import Found, remembered
from experiments.settings import Sizes


def answer(config: Config, progress: Progress) -> Result:
    """Load and read, then every variant."""
    loaded = measure.loaded_model(config.reading, progress)
    amounts = config.amounts
    sizes = Sizes(amounts.calibration, amounts.windows, amounts.context, 2, 64)
    return compared(
        prepared(
            config, loaded, measure.material(loaded, config.reading, sizes, progress), progress
        )
    )


def compared(work: Work) -> Result:
    """Every variant, and the pairs that belong together."""
    config, progress = work.config, work.progress
    all_seen: dict[Variant, Seen] = {}
    nll: dict[float, np.ndarray] = {}
    chosen = variants(config)
    with progress.task("variants", len(chosen)) as advance:
        for variant in chosen:
            start = variant.sparse_from
            all_seen[variant], nll[start] = measured(work, variant)
            advance(" ".join(map(str, variant)))
    counted = np.bincount(work.labels.numpy().ravel(), minlength=len(KINDS))
    return Result(
        config=config,
        inputs=work.material.inputs,
        dense_ppl={f"{start:g}": float(np.exp(nll[start].mean())) for start in config.sparse_from},
        tokens=dict(zip(KINDS, map(int, counted), strict=True)),
        massive=list(work.calibration.massive),
        shifts=[shift for sparsity in config.sparsities for shift in shifts(work, sparsity)],
        rows=[row(v, s, nll[v.sparse_from]) for v, s in all_seen.items()],
        gains=[
            gain(variant, other, all_seen)
            for variant in chosen
            for other in _others(variant, config)
        ],
    )


def _others(variant: Variant, config: Config) -> list[str]:
    if variant.way == PLAIN:
        return []
    control = CONTROL_OF.get(variant.way)
    return [PLAIN] + ([control] if control in config.ways else [])


def measured(work: Work, variant: Variant) -> tuple[Seen, np.ndarray]:
    """(the variant, the dense model's nats by sequence), from the folder if they are there."""

    def compute() -> Found:
        start = variant.sparse_from
        looks, nll = _dense(work, start)
        spent = spending(work, variant)
        keeps = spent.keeps(asked(work, spent))
        text, steps = work.text(start), -(-len(work.labels) // measure.AT_ONCE)
        with (
            work.progress.task(f"measure: {' '.join(map(str, variant))}", steps) as advance,
            gated(work.model, keeps) as phase,
        ):
            found = look(work.model, work.weights, text, looks, advance, phase, variant.way)
        return Found(seen(text, work.whole, looks, found)._asdict() | {"dense": nll}, {})

    arrays = dict(remembered(work.config.state, _key(work, variant), compute).arrays)
    dense = arrays.pop("dense")
    return Seen(**arrays), dense


def _dense(work: Work, start: float) -> tuple[Looks, np.ndarray]:
    if start not in work.dense:
        text, steps = work.text(start), -(-len(work.labels) // measure.AT_ONCE)
        with work.progress.task("measure: dense", steps) as advance:
            looks, nll, _ = look(work.model, work.weights, text, None, advance)
        work.dense = {start: (looks, nll)}
    return work.dense[start]


def _key(work: Work, variant: Variant) -> dict[str, Any]:
    """All that the numbers of a variant depend on, but for the code."""
    return {
        "model": work.model_sha256,
        "dtype": work.material.inputs.dtype,
        "variant": variant._asdict(),
        "spread": work.config.spread if variant.way in ALLOCATED else None,
        "rounds": work.config.amounts.rounds,
        "ids": [
            hashlib.sha256(ids.numpy().tobytes()).hexdigest()[:16]
            for ids in (work.material.calibration, work.material.evaluation)
        ],
    }


def row(variant: Variant, found: Seen, dense: np.ndarray) -> Row:
    """One variant beside the dense model."""
    tokens, big = found.counts.sum(axis=0), _ratios(found.massive)
    with np.errstate(invalid="ignore"):
        kinds = found.read.sum(axis=0) / tokens
    return Row(
        variant=variant,
        # A broken model's loss can be past what exp holds.
        ppl=float(np.exp(min(found.nll.mean(), 700.0))),
        nll=interval(found.nll - dense),
        read=float(found.read.sum() / tokens.sum()),
        kinds=tuple(float(k) if n else None for k, n in zip(kinds, tokens, strict=True)),
        kept=Recalls(
            *(recalls.share(ratio) for ratio in (*_ratios(found.first), *_ratios(found.later)))
        ),
        tags=recalls.share(Ratio(*found.tags.T)),
        massive=(recalls.share(big[0]), recalls.share(big[1])),
        sizes=recalls.share(Ratio(*found.sizes.T)),
    )


def gain(variant: Variant, other: str, all_seen: Mapping[Variant, Seen]) -> Gain:
    """The variant less the other."""
    now, then = all_seen[variant], all_seen[variant._replace(way=other)]
    reads = [s.read.sum() / s.counts.sum() for s in (now, then)]
    return Gain(
        variant,
        other,
        interval(now.nll - then.nll),
        recalls.difference(_ratios(then.first)[0], _ratios(now.first)[0]),
        recalls.difference(_ratios(then.later)[0], _ratios(now.later)[0]),
        recalls.difference(Ratio(*then.tags.T), Ratio(*now.tags.T)),
        float(reads[0] / reads[1]),
    )


def _ratios(three: np.ndarray) -> tuple[Ratio, Ratio]:
    """(recall, precision) of counts (hits, dense, found)."""
    return Ratio(three[:, 0], three[:, 1]), Ratio(three[:, 0], three[:, 2])
