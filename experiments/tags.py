"""Catch, tag, release on text, and what happens when the tags are taken away.

Zhang & Papyan 2025: sinks catch tokens, write a tag into them, and later layers read it. Here the
first two are measured, the third is looked for, and every claim of cause is an intervention beside
its control: as large a change in a random direction, and the same change at random tokens.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from experiments.intervals import Interval
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section
from experiments.settings import SEEDS, BadOption, Reading, Sizes, between, within

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from experiments.probing.causal import Plan, Row
    from experiments.probing.release import Released
    from experiments.probing.repeats import Repeat


@dataclass(frozen=True)
class Config:
    """Measure tags on one half of the sequences; heads and layers are chosen on the other."""

    reading: Reading = field(default_factory=Reading)
    sequences: int = 40
    """Sequences of the text; every second one is judged."""
    seq: int = 128
    """Tokens of a sequence, at least 64."""
    epsilon: float = 0.1
    """A key is a sink when it receives more than this share of attention on average."""
    heads: int = 4
    """Heads to look at, those with most later sinks."""
    seed: int = 0
    """Of random tokens and directions."""


@dataclass(frozen=True)
class Result:
    """Losses are in nats a token; `mass` is of the untouched model, by layer."""

    config: Config
    inputs: Inputs
    plan: "Plan"
    released: "Released"
    nll: Interval
    mass: np.ndarray
    rows: "list[Row]"
    by_head: "list[Row]"
    repeats: "list[Repeat]"


def run(config: Config, progress: Progress) -> Result:
    """Score, choose, look, intervene.

    Raises:
        BadOption: an option that cannot be used, or a model without later sinks.
    """
    from experiments import measure
    from experiments.intervals import interval
    from experiments.probing import causal, repeats
    from experiments.probing.released import look

    between("epsilon", config.epsilon, 0, 1)
    within("sequences", config.sequences, 8)
    within("heads", config.heads, 1)
    within("seed", config.seed, 0, SEEDS)
    sizes = Sizes(1, 2, config.seq, config.sequences, config.seq)
    loaded = measure.loaded_model(config.reading, progress)
    material = measure.material(loaded, config.reading, sizes, progress)
    ids = material.sequences
    with progress.task("sinks", len(ids.split(measure.AT_ONCE))) as advance:
        scores = measure.sink_scores(loaded.model, ids, advance)
    plan = causal.plan(scores[:, ::2], scores[:, 1::2], config.epsilon, config.seed)
    if not any(plan.late) or not plan.after:
        raise BadOption(f"{loaded.name} has no later sinks at --epsilon {config.epsilon}")
    with progress.task("catch, tag, release", len(ids[1::2].split(measure.AT_ONCE))) as advance:
        seen = look(loaded.model, ids, scores, config.epsilon, advance, heads=config.heads)
    trials = [*causal.trials(plan)]
    by_head = [*causal.by_head(plan, seen.places[: causal.HEADS])]
    watched = causal.watched(plan, seen, len(scores))
    with progress.task("interventions", 1 + len(trials) + len(by_head)) as advance:
        plain, rows = causal.table(loaded.model, ids[1::2], trials + by_head, watched, advance)
    with progress.task("repeats", repeats.PASSES) as advance:
        repeated = repeats.measure(loaded.model, ids[1::2], plan, config.epsilon, advance)
    return Result(
        config=config,
        inputs=material.inputs,
        plan=plan,
        released=seen.released,
        nll=interval(plain.nll),
        mass=plain.mass.mean(axis=1),
        rows=rows[: len(trials)],
        by_head=rows[len(trials) :],
        repeats=repeated,
    )


def sections(result: Result) -> list[Section]:
    """What is caught, tagged and released; then the interventions, by column."""
    from experiments.probing import readout, survived
    from experiments.probing.causal_words import causal_section, repeats_section

    line = result.released.readout
    return [
        survived.section(result.released),
        *([] if line is None else [readout.section(line)]),
        causal_section(result.rows, result.by_head, result.plan, result.nll, result.inputs.text),
        repeats_section(result.repeats),
    ]
