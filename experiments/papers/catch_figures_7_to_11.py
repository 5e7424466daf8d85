"""Catch, tag, release, figures 7 to 11: are sinks and their tags there on prompts of other kinds?

After figures 7 to 11 of version 1: attention and coloured tokens for chain of thought without and
with examples, inference and multiple choice. Heads are chosen on a text that has none of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from experiments.findings import ABOVE_ZERO, Finding, Region
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.catch.kinds import KINDS, Kind, prompts
from experiments.parts.tagged import by_sequence, finding, told
from experiments.parts.work import DEMO, LAPTOP, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Section, Table
from experiments.settings import Reading, between, some, within


@dataclass(frozen=True)
class Config:
    """Choose heads on text, judge them on prompts of each kind."""

    reading: Reading = DEMO
    amounts: Amounts = LAPTOP
    kinds: tuple[Kind, ...] = tuple(KINDS)
    """Kinds of prompts."""
    prompts: int = 12
    """Prompts of each kind; intervals are over prompts."""
    epsilon: float = 0.1
    """A key is a sink when it receives more than this share of attention on average."""
    heads: int = 4
    """Heads to judge, those with most later sinks on the text."""
    seed: int = 0
    """Of the prompts."""


PRESETS = {
    "smallest": Config(amounts=SMALLEST, kinds=("worked",), prompts=8, heads=2),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Llama-2-7b-hf", device="cuda"), PAPER, prompts=100),
}


def run(config: Config, progress: Progress) -> Answer:
    """Choose heads, then read every prompt; raises as `prepared` does, and for unknown kinds."""
    from experiments import catching, measure
    from experiments.parts.catch.judging import judged
    from experiments.probing import release

    some("kinds", config.kinds)
    within("prompts", config.prompts, 2, 10_000)
    within("heads", config.heads, 1)
    between("epsilon", config.epsilon, 0, 1)
    work = prepared(config.reading, config.amounts, progress)
    loaded = work.loaded
    scores = measure.sink_scores(loaded.model, work.sequences, lambda _: None)
    places = release.choose(scores, config.epsilon, config.heads)
    units, pictured = {}, {}
    for kind in config.kinds:
        texts = prompts(kind, config.prompts, config.seed)
        read = [catching.encoded(loaded, text, config.reading.bos) for text in texts]
        with progress.task(kind, len(texts)) as advance:
            seen = judged(loaded.model, [r.ids for r in read], places, config.epsilon, advance)
        units |= {f"{kind}: {name}": found for name, found in by_sequence(seen).items()}
        pictured[kind] = catching.look(loaded, read[0], config.epsilon)
    columns = ("kind", "caught", "η² above segments", "ARI above segments", "ARI of input")
    names = ("caught", "eta2", "writes", "reads")
    rows = [(k, *(told(units[f"{k}: {name}"]) for name in names)) for k in config.kinds]
    heads = ", ".join(f"{layer}.{head}" for layer, head in places)
    caption = f"Block.head, chosen on the text: {heads}. Means over prompts, 95% intervals."
    tables = [Table(columns, rows, caption)]
    return Answer(config, work.inputs, [*_findings(config, units)], tables, units, pictured)


def _findings(config: Config, units: dict) -> Iterator[Finding]:
    claim, share, ari = "catch/figures-7-to-11", "share of attention", "ARI above segments"
    for kind in config.kinds:
        caught, writes, reads = (units[f"{kind}: {n}"] for n in ("caught", "writes", "reads"))
        most, read = "1 / keys, without preference", f"the heads' input: {told(reads)}; segments: 0"
        yield finding(f"{claim}/catch", kind, caught, share, Region(0.5), most, "prompts")
        yield finding(f"{claim}/tag", kind, writes, ari, ABOVE_ZERO, read, "prompts")


def sections(result: Answer) -> list[Section]:
    """Claims, the table by kind, and the first prompt of each kind in pictures."""
    from experiments.probing import prompted

    drawn = [
        picture
        for kind, seen in result.data.items()
        for picture in prompted.drawings(seen, result.config.epsilon, f"{kind}-")
    ]
    return answer.sections(result, "Sinks and tags on prompts of other kinds", drawn)
