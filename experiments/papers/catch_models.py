"""Catch, tag, release, version 2: has another model more sinks, or as many?

After figure 5 and section 6: a model distilled for reasoning beside its base has more sinks; one
with norms on queries and keys has as many as one without. Both need a second model: without
--against only the first one is counted, and the claims are untested.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from experiments.findings import ABOVE_ZERO, Finding, Region
from experiments.intervals import interval
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.work import DEMO, LAPTOP, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Section, Table
from experiments.settings import Reading

ASKED = {"reasoning": ABOVE_ZERO, "qk-norm": Region(-0.1, 0.1)}


@dataclass(frozen=True)
class Config:
    """Count both models' sinks on windows of the same text."""

    reading: Reading = DEMO
    amounts: Amounts = LAPTOP
    against: str = ""
    """The other model, without reasoning or without norms on queries and keys."""
    asks: Literal["reasoning", "qk-norm"] | None = None
    """What the first model has and the other has not; none: both claims stay untested."""


_DISTILLED = Reading("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", device="cuda")
PRESETS = {
    "smallest": Config(amounts=SMALLEST),
    "laptop": Config(),
    "paper": Config(_DISTILLED, PAPER, "meta-llama/Llama-3.1-8B", "reasoning"),
}


def run(config: Config, progress: Progress) -> Answer:
    """Sinks of each model; raises as `prepared` does."""
    from experiments import measure
    from mech.probes import sinks

    names = [config.reading.model, *([config.against] if config.against else [])]
    units, rows, inputs = {}, [], None
    for name in names:
        work = prepared(replace(config.reading, model=name), config.amounts, progress)
        inputs = inputs or work.inputs
        scores = measure.sink_scores(work.loaded.model, work.sequences, lambda _: None)
        found = sinks.sinks(scores, measure.EPSILON)
        counted = sinks.guarded(scores.shape[-1])
        counted[0] = True
        # Models differ in heads: sinks a head and sequence.
        units[name] = found[..., counted].sum(axis=-1).mean(axis=(0, 2))
        rows.append((name, str(interval(units[name]))))
    assert inputs is not None
    caption = "Sinks a head in a sequence, the tail left out; 95% intervals over sequences."
    tables = [Table(("model", "sinks a head"), rows, caption)]
    return Answer(config, inputs, list(_findings(config, units)), tables, units)


def _findings(config: Config, units: dict) -> Iterator[Finding]:
    first = units[config.reading.model]
    for asked, claimed in ASKED.items():
        effect, control, note = None, "", "needs a pair of models that differ in this (--against)"
        if config.against and config.asks == asked:
            other = units[config.against]
            effect, note = interval((first - other) / np.mean(other)), ""
            control = f"{config.against}: {interval(other)}"
        case, unit = config.reading.model, "share of the other model's sinks"
        key = f"catch/v2-models/{asked}"
        yield Finding(key, case, effect, unit, "sequences", claimed, control, note)


def sections(result: Answer) -> list[Section]:
    """Claims, then counts."""
    return answer.sections(result, "Sinks of two models")
