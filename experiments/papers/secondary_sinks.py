"""Secondary attention sinks (arXiv:2512.22213): who makes them, and what does their norm set?

The paper's three claims, each by its correlation and by an intervention: what the MLP that makes
them writes at these tokens is taken away, or halved; attention's write, and other tokens, are the
controls. The strict span is the paper's; phases are all runs of layers with a raised first token.
"""

from dataclasses import dataclass

from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.work import DEMO, LAPTOP, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Picture, Section
from experiments.settings import Reading


@dataclass(frozen=True)
class Config:
    """Find the tokens that are like the primary sink; rescale what makes them."""

    reading: Reading = DEMO
    amounts: Amounts = LAPTOP


PRESETS = {
    "smallest": Config(amounts=SMALLEST),
    "laptop": Config(),
    "paper": Config(Reading("Qwen/Qwen3-14B", device="cuda"), PAPER),
}


def run(config: Config, progress: Progress) -> Answer:
    """Follow every prompt dense, then under each edit of each span; raises as `prepared` does."""
    from experiments.parts.secondary import made, made_findings
    from experiments.probing import section_secondary
    from experiments.probing.survey_secondary import places
    from experiments.probing.survey_weakening import weakening

    work = prepared(config.reading, config.amounts, progress)
    model, ids = work.loaded.model, work.sequences
    with progress.task("dense", len(ids.split(4))) as advance:
        dense = made.tracks(model, ids, advance)
    found, weak, units, findings = places(dense), weakening(dense), {}, []
    for place in found:
        flagged = made.flagged(dense, made.spans_of(place, dense))
        seen = {"dense": made.read(dense, flagged)}
        if place.maker is not None:
            with progress.task(place.name, len(made.EDITS) * len(ids.split(4))) as advance:
                seen |= made.edited(model, ids, place.maker, flagged, advance)
        units |= {f"{place.name}, {e}, {n}": v for e, of in seen.items() for n, v in of.items()}
        findings += made_findings.of_place(place, seen)
    findings += made_findings.fading(weak, bool(found))
    tables = [section_secondary.table(found, len(ids))] if found else []
    return Answer(config, work.inputs, findings, tables, units, {"profile": weak.profile})


def sections(result: Answer) -> list[Section]:
    """Claims, the primary sink through the layers, and all measures of each span."""
    from experiments.parts.curves import curves

    profile = result.data["profile"]
    title, along = "The primary sink through the layers", "mean α over heads"
    lines = {"first token": profile}
    drawn = curves(range(len(profile)), lines, across="block", along=along, title=title)
    picture = Picture("primary", drawn, "Mean over prompts, 95% bands over them.")
    return answer.sections(result, "Secondary sinks", [picture])
