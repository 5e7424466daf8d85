"""Catch, tag, release, figure 2: do the tokens that one sink caught lie together?

After figure 2 of version 1: a head's attention, and the tokens coloured by the leading components
of what the head writes and of the stream later. A picture of one prompt is no evidence: heads that
were chosen on half of the sequences are judged on the other half, beside random contiguous
segments, because neighbours are alike anyway.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from experiments.findings import ABOVE_ZERO, Finding, Region
from experiments.intervals import Interval
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.tagged import by_sequence, finding, told
from experiments.parts.work import DEMO, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Section
from experiments.settings import Reading, between, within

FORTY = Amounts(sequences=40)
LATER = 3
"""Blocks between the head and the stream in which its groups are looked for."""


@dataclass(frozen=True)
class Config:
    """Choose the heads with most later sinks, and judge them on other sequences."""

    reading: Reading = DEMO
    amounts: Amounts = FORTY
    epsilon: float = 0.1
    """A key is a sink when it receives more than this share of attention on average."""
    heads: int = 4
    """Heads to judge, those with most later sinks on the other half of the sequences."""
    prompt: str = "laugh"
    """Text of the picture, or the name of one of ours."""


PRESETS = {
    "smallest": Config(amounts=replace(SMALLEST, sequences=14)),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Llama-2-7b-hf", device="cuda"), PAPER),
}


def run(config: Config, progress: Progress) -> Answer:
    """Score, choose, judge, and look at one prompt; raises as `prepared` does."""
    from experiments import catching, measure
    from experiments.probing import prompts, release, released

    between("epsilon", config.epsilon, 0, 1)
    within("heads", config.heads, 1)
    work = prepared(config.reading, config.amounts, progress)
    model, ids = work.loaded.model, work.sequences
    groups = len(ids.split(measure.AT_ONCE)) + len(ids[1::2].split(released.AT_ONCE))
    with progress.task("catch, tag, release", groups) as advance:
        scores = measure.sink_scores(model, ids, advance)
        seen = released.look(model, ids, scores, config.epsilon, advance, heads=config.heads)
    text = prompts.chosen(config.prompt, None)
    encoded = catching.encoded(work.loaded, text, config.reading.bos)
    pictured = catching.look(work.loaded, encoded, config.epsilon)
    units = by_sequence(seen.seen) if seen.places else {}
    found = list(_findings(config, units, seen.released))
    tables = release.section(seen.released).tables
    data = {"pictured": pictured, "heads": int(np.prod(scores.shape[::2]))}
    return Answer(config, work.inputs, found, tables, units, data)


def _findings(config: Config, units: dict, released) -> Iterator[Finding]:
    none = np.full(config.amounts.sequences // 2, np.nan)
    values = {name: units.get(name, none) for name in ("caught", "writes", "reads")}
    case = f"{config.heads} heads"
    read = f"the same heads' input: {told(values['reads'])}; random segments: 0"
    claim, unit = "catch/figure-2", "ARI above segments"
    share = "share of attention"
    most = "1 / keys, without preference"
    yield finding(f"{claim}/catch", case, values["caught"], share, Region(0.5), most)
    yield finding(f"{claim}/tag", case, values["writes"], unit, ABOVE_ZERO, read)
    control, curve = "random contiguous segments of the same sequences: 0", released.curve
    case, effect, note = "no head", None, "no head can be judged"
    if curve is not None:
        depth = min(released.heads[0].layer + 1 + LATER, len(curve.ari) - 1)
        mean, low, high = curve.ari[depth].tolist()
        case, effect, note = f"stream after {depth} blocks", Interval(mean, low, high, curve.n), ""
    yield Finding(f"{claim}/release", case, effect, unit, "sequences", ABOVE_ZERO, control, note)


def sections(result: Answer) -> list[Section]:
    """Claims, the judged heads, and the prompt in pictures."""
    from experiments.probing import prompted

    picture = prompted.section(result.data["pictured"], result.data["heads"], result.config.epsilon)
    return [*answer.sections(result, "Catch, tag, release on text"), picture]
