"""Low-rank is required, figure 2: how many sinks does each pruning method leave?

The paper counts (layer, head, token) with α > 0.1 over 170 sequences. Its count takes the tail of
a sequence for sinks: first tokens and guarded later ones stand beside it.
"""

from dataclasses import dataclass
from typing import NamedTuple

from experiments.findings import ABOVE_ZERO, BELOW_ZERO, Finding
from experiments.intervals import Interval, interval
from experiments.papers import page
from experiments.papers.intervened import DENSE, Variant, intervened
from experiments.papers.work import PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section, Table
from experiments.settings import Reading, between, some


@dataclass(frozen=True)
class Config:
    """Compress by every method at equal budget, and count the sinks that are left."""

    reading: Reading = Reading()
    amounts: Amounts = Amounts()
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


class Left(NamedTuple):
    """Sinks a sequence of one model; differences from the dense one, paired by sequence."""

    name: str
    first: Interval
    later: Interval
    raw: Interval
    fewer: Interval


@dataclass(frozen=True)
class Result:
    """Counts by method, the dense model first."""

    config: Config
    inputs: Inputs
    left: list[Left]
    findings: list[Finding]


def run(config: Config, progress: Progress) -> Result:
    """Count the dense model's sinks, then each compressed one's; raises as `prepared` does."""
    import numpy as np

    from experiments import measure
    from mech.probes import sinks

    some("methods", config.methods)
    between("sparsity", config.sparsity, 0, 1)
    work = prepared(config.reading, config.amounts, progress)
    totals, left = {}, []
    for variant in [DENSE, *(Variant(m, config.sparsity) for m in config.methods)]:
        with intervened(work, variant, progress, select=config.select):
            scores = measure.sink_scores(work.loaded.model, work.sequences, lambda _: None)
        totals[variant.method] = sinks.sinks(scores, measure.EPSILON).sum(axis=(0, 2, 3))
        fewer = interval((totals[variant.method] - totals["dense"]).astype(np.float64))
        left.append(Left(str(variant), *measure.counts(scores), fewer))
    return Result(config, work.inputs, left, list(_findings(config, totals)))


def _findings(config, totals):
    for method in config.methods:
        against = "dense" if method != "oats" else "wanda"
        if against in totals:
            yield Finding(
                claim=f"low-rank/figure-2/{'oats' if method == 'oats' else 'fewer'}",
                case=f"{method}, {config.sparsity:.0%}",
                effect=interval((totals[method] - totals[against]).astype(float)),
                unit="sinks a sequence (equation 1, unguarded)",
                over="sequences",
                claimed=ABOVE_ZERO if method == "oats" else BELOW_ZERO,
                control=f"{against}: {interval(totals[against].astype(float))}",
            )


def sections(result: Result) -> list[Section]:
    """What was found, then counts and paired differences."""
    rows = [tuple(map(str, x)) for x in result.left]
    columns = ("model", "first token", "later, guarded", "as the paper counts", "less dense")
    caption = "Sinks a sequence, 95% intervals over sequences; differences are paired."
    counts = Section("Sinks left by pruning", [], [Table(columns, rows, caption)])
    return [page.found(result.findings), counts]
