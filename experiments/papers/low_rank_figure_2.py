"""Low-rank is required, figure 2: how many sinks does each pruning method leave?

The paper counts (layer, head, token) with α > 0.1 over 170 sequences. Its count takes the tail of
a sequence for sinks: first tokens and guarded later ones stand beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from experiments.findings import ABOVE_ZERO, BELOW_ZERO, Finding
from experiments.intervals import interval
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.intervened import DENSE, Variant, intervened
from experiments.parts.work import DEMO, LAPTOP, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Section, Table
from experiments.settings import Reading, between, some


@dataclass(frozen=True)
class Config:
    """Compress by every method at equal budget, and count the sinks that are left."""

    reading: Reading = DEMO
    amounts: Amounts = LAPTOP
    methods: tuple[str, ...] = ("magnitude", "wanda", "sparsegpt", "oats")
    """Names as in ctr compress."""
    sparsity: float = 0.5
    """Share of the weights that Wanda removes; the others keep as many numbers."""
    select: str = "*"
    """Glob over the linears that are compressed."""


PRESETS = {
    "smallest": Config(amounts=SMALLEST, methods=("wanda",), select="layers.2.self_attn.*"),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Meta-Llama-3-8B", device="cuda"), PAPER),
}


def run(config: Config, progress: Progress) -> Answer:
    """Count the dense model's sinks, then each compressed one's; raises as `prepared` does."""
    from experiments import measure
    from mech.probes import sinks

    some("methods", config.methods)
    between("sparsity", config.sparsity, 0, 1)
    work = prepared(config.reading, config.amounts, progress)
    totals, rows = {}, []
    for variant in [DENSE, *(Variant(m, config.sparsity) for m in config.methods)]:
        with intervened(work, variant, progress, select=config.select):
            scores = measure.sink_scores(work.loaded.model, work.sequences, lambda _: None)
        found = sinks.sinks(scores, measure.EPSILON).sum(axis=(0, 2, 3)).astype(float)
        totals[variant.method] = found
        less = interval(found - totals["dense"])
        rows.append(tuple(map(str, (variant, *measure.counts(scores), less))))
    columns = ("model", "first token", "later, guarded", "as the paper counts", "less dense")
    caption = "Sinks a sequence, 95% intervals over sequences; differences are paired."
    tables = [Table(columns, rows, caption)]
    return Answer(config, work.inputs, list(_findings(config, totals)), tables, totals)


def _findings(config: Config, totals: dict) -> Iterator[Finding]:
    for method in config.methods:
        against, which = ("wanda", "oats") if method == "oats" else ("dense", "fewer")
        if against in totals:
            yield Finding(
                claim=f"low-rank/figure-2/{which}",
                case=f"{method}, {config.sparsity:.0%}",
                effect=interval(totals[method] - totals[against]),
                unit="sinks a sequence (equation 1, unguarded)",
                over="sequences",
                claimed=ABOVE_ZERO if method == "oats" else BELOW_ZERO,
                control=f"{against}: {interval(totals[against])}",
            )


def sections(result: Answer) -> list[Section]:
    """Claims, then counts."""
    return answer.sections(result, "Sinks left by pruning")
