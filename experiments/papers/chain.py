"""The chain, end to end: low rank -> outliers -> sinks -> tags -> segments -> few-shot.

Each link is broken in the demo model, beside a control that changes as much; every later link is
measured. Then a mediator is held at its dense value: what goes away goes through it.
"""

from dataclasses import dataclass, replace

from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.work import DEMO, LAPTOP, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Section
from experiments.settings import Budget, Reading, some

FEW, OATS = replace(LAPTOP, calibration=8, sequences=10), Budget()


@dataclass(frozen=True)
class Config:
    """Break every link, measure all later ones, hold the mediators; planted models beside it."""

    reading: Reading = DEMO
    amounts: Amounts = FEW
    budget: Budget = OATS
    """Of OATS, whose low-rank term is switched off."""
    links: tuple[str, ...] = ("low rank", "outliers", "sinks", "tags", "segments")
    """Which are broken."""
    tasks: tuple[str, ...] = ("labels", "segment-average")
    """Generated tasks of `ctr experiment few-shot`."""
    streams: int = 10
    """Sequences of items of every task, the units of its intervals."""
    task_seq: int = 112
    """Tokens of such a sequence."""
    shots: int = 4
    """Items that stand before every item that is scored, at least."""
    early: float = 2.0
    """Early layers are those with more than so many times the mean layer's later sinks."""
    planted: int = 12
    """Planted models in which the chain is known to be true; 0: none."""
    seed: int = 0
    """Of random tokens, directions and terms."""


PRESETS = {
    "smallest": Config(
        amounts=replace(SMALLEST, calibration_seq=128, sequences=2, seq=128),
        links=("sinks",),
        tasks=("labels",),
        streams=2,
        task_seq=64,
        early=1.0,
        planted=2,
    ),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Meta-Llama-3-8B", device="cuda"), PAPER, streams=64),
}


def run(config: Config, progress: Progress) -> Answer:
    """Aim on other text, then judge; raises as `prepared` does, and BadOption without sinks."""
    from experiments.parts.chain import effects, units, weights
    from experiments.parts.chain.links import trials
    from experiments.parts.chain.measure import measured, steps
    from experiments.parts.chain.planted import planted

    some("links", config.links)
    work = prepared(config.reading, config.amounts, progress)
    model, tokenizer = work.loaded.model, work.loaded.tokenizer
    other = work.calibration[:, : config.amounts.seq]
    aim = units.aim(model, other, times=config.early, seed=config.seed)
    asked = trials(config.links)
    names = {trial.weights for trial in asked if trial.weights}
    terms = weights.operators(work, config.budget, names, progress, config.seed)
    amounts = {"streams": config.streams, "seq": config.task_seq, "shots": config.shots}
    every = [units.text_units(model, work.sequences, aim.early)]
    every += [units.task_units(model, tokenizer, t, aim.early, **amounts) for t in config.tasks]
    kinds = []
    for kind in every:
        with progress.task(kind.name, steps(kind, asked)) as advance:
            found = measured(model, kind, aim, asked, terms, advance, config.seed)
        kinds.append(effects.kind(kind.name, found))
    known = planted(config.planted, config.links, progress, config.seed)
    return Answer(
        config,
        work.inputs,
        [*effects.findings(kinds), *known.findings],
        effects.tables([*kinds, *known.kinds]),
        effects.units(kinds),
        {"early": aim.early, "places": aim.places, "blocks": aim.blocks},
    )


def sections(result: Answer) -> list[Section]:
    """Claims, tables by kind of sequence, and the chain with its arrows."""
    from experiments.parts.chain.pictures import pictures

    return answer.sections(result, "The chain, link by link", pictures(result.findings))
