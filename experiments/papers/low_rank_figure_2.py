"""Low-rank is required, figure 2: how many sinks does each pruning method leave?

The paper counts (layer, head, token) with α > 0.1 over 170 sequences. That count takes the tail of
a sequence for sinks, and a broken model may have as many sinks elsewhere: beside it stand the
guarded count, and the share of the dense model's own sinks that is left.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from experiments import recalls
from experiments.findings import ABOVE_ZERO, BELOW_ZERO, Finding
from experiments.intervals import interval
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.intervened import DENSE, Variant, intervened
from experiments.parts.low_rank import kept
from experiments.parts.panels import panels
from experiments.parts.work import DEMO, LAPTOP, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Picture, Section, Table
from experiments.settings import Reading, between, some


@dataclass(frozen=True)
class Config:
    """Compress by every method at equal budget, and count the sinks that are left."""

    reading: Reading = DEMO
    amounts: Amounts = LAPTOP
    methods: tuple[str, ...] = ("magnitude", "wanda", "sparsegpt", "oats")
    """Names as in ctr compress."""
    sparsities: tuple[float, ...] = (0.5, 0.7)
    """Shares of the weights that Wanda removes; the others keep as many numbers."""
    select: str = "*"
    """Glob over the linears that are compressed."""


PRESETS = {
    "smallest": Config(DEMO, SMALLEST, ("wanda", "oats"), (0.5,), "layers.2.self_attn.*"),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Meta-Llama-3-8B", device="cuda"), PAPER),
}


def run(config: Config, progress: Progress) -> Answer:
    """Count the dense model's sinks, then each compressed one's; raises as `prepared` does."""
    some("methods", config.methods)
    for sparsity in config.sparsities:
        between("sparsities", sparsity, 0, 1)
    work = prepared(config.reading, config.amounts, progress)
    variants = [DENSE, *(Variant(m, s) for s in config.sparsities for m in config.methods)]
    found = {}
    for variant in variants:
        with intervened(work, variant, progress, select=config.select):
            found[variant] = kept.read(work)
    dense, shares = found[DENSE], {v: found[v].of(found[DENSE]) for v in variants}
    units, rows, lines = {}, [], []
    for variant, sinks in found.items():
        first, later = shares[variant].first_recall, shares[variant].later_recall
        units |= {f"{variant}, raw": sinks.raw, f"{variant}, guarded": sinks.guarded}
        units |= {f"{variant}, later sinks of the dense": later.part}
        raw, less, guarded = map(interval, (sinks.raw, sinks.raw - dense.raw, sinks.guarded))
        left = recalls.share(first), recalls.share(later)
        rows.append(tuple(map(str, (variant, raw, less, guarded, *map(recalls.shown, left)))))
        lines.append((raw[:3], guarded[:3], (left[1] or [np.nan] * 3)[:3]))
    columns = ("model", "as the paper counts", "less dense", "guarded", "first kept", "later kept")
    table = Table(columns, rows, "Sinks a sequence, shares of the dense model's; 95% intervals.")
    findings = [f for v in variants[1:] for f in _findings(config, v, found, shares)]
    return Answer(config, work.inputs, findings, [table], units, {"lines": np.array(lines)})


def _findings(config: Config, variant: Variant, found: dict, shares: dict) -> Iterator[Finding]:
    sparse = [Variant(m, variant.sparsity) for m in config.methods if m != "oats"]
    for other in sparse if variant.method == "oats" else [DENSE]:
        which, claimed = ("fewer", BELOW_ZERO) if other == DENSE else ("oats", ABOVE_ZERO)
        for words, way in (("as the paper counts", "raw"), ("guarded", "guarded")):
            own, its = getattr(found[variant], way), getattr(found[other], way)
            case, control = f"{variant} less {other}, {words}", f"{other}: {interval(its)}"
            told = interval(own - its), "sinks a sequence", claimed, control
            yield kept.finding(f"low-rank/figure-2/{which}", case, *told)
        if other != DENSE:
            pair = shares[other].later_recall, shares[variant].later_recall
            control = f"{other}: {recalls.shown(recalls.share(pair[0]))}"
            told = recalls.difference(*pair), "of the dense model's", ABOVE_ZERO, control
            yield kept.finding("low-rank/figure-2/kept", f"{variant} less {other}, later", *told)


def sections(result: Answer) -> list[Section]:
    """Claims, counts, and curves over sparsity."""
    lines, methods = result.data["lines"], result.config.methods
    labels = ("sinks a sequence, as the paper counts", "the same, guarded", "share of later ones")
    own = {m: np.r_[lines[:1], lines[1 + i :: len(methods)]] for i, m in enumerate(methods)}
    measures = {x: {m: own[m][:, n] for m in methods} for n, x in enumerate(labels)}
    points = ["dense", *(f"{s:.0%}" for s in result.config.sparsities)]
    drawn = Picture("low-rank-2", panels(points, measures, "removed"), "95% intervals.")
    return answer.sections(result, "Sinks left by pruning", [drawn])
