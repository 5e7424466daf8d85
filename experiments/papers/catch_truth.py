"""Catch, tag, release, version 2, tables 1 and 7: can truth and mood be read in the tag alone?

A linear probe on what a statement's sinks write (first token and full stop), on the output without
it, and on all of it, at two queries: the full stop itself, whose only sink is the first token, and
the last of the words behind it. Layer and ridge are chosen inside the training folds.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from experiments.findings import ABOVE_ZERO, Finding, Region
from experiments.intervals import interval
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.catch.statements import Topic, encoded, given, parts, statements
from experiments.parts.work import DEMO, shorten
from experiments.progress import Progress
from experiments.report import Section, Table
from experiments.settings import SEEDS, Reading, between, some, within

TABLE = {"cities": ("v2-table-1", Region(0.92)), "moods": ("v2-table-7", Region(0.86))}
CHANCE = Region(0.4, 0.6)


@dataclass(frozen=True)
class Config:
    """Probe statements of each topic."""

    reading: Reading = DEMO
    topics: tuple[Topic, ...] = ("cities", "moods")
    """Whether a city is in a country, and whether a word praises."""
    groups: int = 100
    """Cities, of two statements each; of words there are at most 60."""
    epsilon: float = 0.1
    """A token is a head's sink where the query gives it more than this, mean over statements."""
    blocks: int = 0
    """Only the model's first blocks; 0: all."""
    seed: int = 0
    """Of the false statements, the shuffled labels and the other token."""


PRESETS = {
    "smallest": Config(topics=("moods",), groups=20, blocks=3),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Meta-Llama-3-8B", device="cuda")),
}


def run(config: Config, progress: Progress) -> Answer:
    """Read every statement, then fit; raises BadOption, and BadInput for the model."""
    from experiments import measure
    from experiments.parts.catch.linear_probe import correct

    some("topics", config.topics)
    within("groups", config.groups, 20, 100)
    between("epsilon", config.epsilon, 0, 1)
    within("seed", config.seed, 0, SEEDS)
    loaded = measure.loaded_model(config.reading, progress)
    shorten(loaded.model, config.blocks)
    units, rows, first = {}, [], []
    for topic in config.topics:
        asked = statements(topic, config.groups, config.seed)
        read, stop = encoded(loaded, asked.texts, config.reading.bos)
        first += read[:1]
        with progress.task(topic) as advance:
            both = given(loaded.model, [r.ids for r in read], stop, config.seed, advance)
        mixed = np.random.default_rng(config.seed).permutation(asked.label)
        for query, found in zip(("at the stop", "after it"), both, strict=True):
            split = parts(found, config.epsilon)
            right = {name: correct(x, asked.label, asked.fold) for name, x in split.items()}
            right["shuffled"] = correct(split["tag"], mixed, asked.fold)
            case = f"{topic}, {query}"
            by = {n: np.bincount(asked.group, r) / 2 for n, r in right.items()}
            units |= {f"{case}: {name}": values for name, values in by.items()}
            rows.append((case, *(str(interval(values)) for values in by.values())))
    columns = ("statements", "tag alone", "without it", "all", "one other token", "shuffled")
    caption = "Accuracy on held-out groups; 95% intervals over cities or words. 0.5 is chance."
    inputs = measure.described(loaded, config.reading, first[0], None)
    return Answer(config, inputs, [*_findings(units)], [Table(columns, rows, caption)], units)


def _findings(units: dict) -> Iterator[Finding]:
    for case in dict.fromkeys(name.split(": ")[0] for name in units):
        found = {n: units[f"{case}: {n}"] for n in ("tag", "rest", "whole", "other", "shuffled")}
        told = {name: str(interval(values)) for name, values in found.items()}
        place, claimed = TABLE[case.split(",")[0]]
        for which, values, region, beside in (
            ("tag", found["tag"], claimed, f"shuffled: {told['shuffled']}; other: {told['other']}"),
            ("rest", found["rest"], CHANCE, f"with the tag: {told['whole']}"),
            ("more", found["tag"] - found["rest"], ABOVE_ZERO, f"without it: {told['rest']}"),
        ):
            effect, key = interval(values), f"catch/{place}/{which}"
            yield Finding(key, case, effect, "accuracy", "groups", region, beside)


def sections(result: Answer) -> list[Section]:
    """Claims, then accuracies."""
    return answer.sections(result, "What can be read in a tag")
