"""Catch, tag, release, version 2: how much of what a head writes is one or two tags?

The share of the variance of a head's outputs, over the tokens that are no sinks, that lies in the
span of the tags of its one or two strongest sinks. Controls: the span of the values of as many
random tokens, and of as many principal components, which is the most that any directions hold.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from experiments.findings import ABOVE_ZERO, Finding, Region
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.tagged import finding, told
from experiments.parts.work import DEMO, LAPTOP, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Picture, Section, Table
from experiments.settings import SEEDS, Reading, between, within


@dataclass(frozen=True)
class Config:
    """Every head with a sink, on every sequence."""

    reading: Reading = DEMO
    amounts: Amounts = LAPTOP
    epsilon: float = 0.1
    """A key is a sink when it receives more than this share of attention on average."""
    seed: int = 0
    """Of the random tokens."""


PRESETS = {
    "smallest": Config(amounts=SMALLEST),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Meta-Llama-3-8B", device="cuda"), PAPER),
}


def run(config: Config, progress: Progress) -> Answer:
    """One pass over the sequences; raises as `prepared` does."""
    from experiments import measure
    from experiments.parts.catch.spanned import look, over_sequences

    between("epsilon", config.epsilon, 0, 1)
    within("seed", config.seed, 0, SEEDS)
    work = prepared(config.reading, config.amounts, progress)
    ids = work.sequences
    with progress.task("tags", len(ids.split(measure.AT_ONCE))) as advance:
        found = look(work.loaded.model, ids, config.epsilon, config.seed, advance)
    best = np.argmax(over_sequences(found.tags[:, ::2], max(1, len(ids) // 4)))
    layer, head = divmod(int(best), found.tags.shape[2])
    units = {
        "tags, median head": _over_heads(found.tags, np.nanmedian),
        "random tokens, median head": _over_heads(found.random, np.nanmedian),
        "components, median head": _over_heads(found.best, np.nanmedian),
        "tags above random tokens": _over_heads(found.tags - found.random, np.nanmean),
        "tags themselves, median head": _over_heads(found.written, np.nanmedian),
        "squared length, median head": _over_heads(found.length, np.nanmedian),
        "tags, best head": found.tags[layer, 1::2, head],
        "random tokens, best head": found.random[layer, 1::2, head],
    }
    rows = [(name, told(values, 2)) for name, values in units.items()]
    caption = (
        "Means over sequences with 95% intervals; squared length: the same without centring. "
        f"Best head: {layer}.{head}, chosen on every second sequence and judged on the others."
    )
    tables = [Table(("share of variance", "found"), rows, caption)]
    by_head = {name: over_sequences(getattr(found, name)) for name in ("tags", "random", "best")}
    return Answer(config, work.inputs, list(_findings(units)), tables, units, by_head)


def _over_heads(values: np.ndarray, by) -> np.ndarray:
    flat = values.transpose(1, 0, 2).reshape(values.shape[1], -1)
    return np.array([by(row) if not np.isnan(row).all() else np.nan for row in flat])


def _findings(units: dict) -> Iterator[Finding]:
    for which, name, claimed, control in (
        ("typical", "tags, median head", Region(0.2, 0.4), "random tokens, median head"),
        ("most", "tags, best head", Region(0.7), "random tokens, best head"),
        ("tags", "tags above random tokens", ABOVE_ZERO, "random tokens, median head"),
    ):
        key, control = f"catch/v2-variance/{which}", f"{control}: {told(units[control], 2)}"
        yield finding(key, name, units[name], "share of variance", claimed, control, fewest=2)


def sections(result: Answer) -> list[Section]:
    """Claims, shares, and every head's share beside its null."""
    from experiments.parts.drawn import shares

    caption = "Mean share of variance over sequences, a point a head, in order of the tags' share."
    drawn = [Picture("variance", shares(result.data), caption)]
    return answer.sections(result, "Variance in the directions of tags", drawn)
