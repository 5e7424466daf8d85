"""Low-rank is required, table 1: which term of sparse plus low rank has the sinks?

The paper switches one term of OATS off and counts. What is left without the low-rank term is the
residual of a matrix whose low-rank part was taken out: that says little of sparse matrices. Beside
it stand a plain sparse matrix with as many nonzeros in every row, one from which as much was
removed, and a random low-rank term of equal rank and norm.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from experiments import naming, recalls
from experiments.findings import ABOVE_ZERO, Finding
from experiments.intervals import interval
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.low_rank import kept
from experiments.parts.low_rank.swapped import CONTROLS, DRAWN, TERMS, swapped
from experiments.parts.work import DEMO, LAPTOP, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Section, Table
from experiments.settings import SEEDS, Budget, Reading, some, within


@dataclass(frozen=True)
class Config:
    """Swap OATS' terms and their controls into the selected linears; the rest stays dense."""

    reading: Reading = DEMO
    amounts: Amounts = LAPTOP
    budget: Budget = field(default_factory=Budget)
    """Of OATS: the paper's sparsity and rank ratio."""
    selects: tuple[str, ...] = ("*.self_attn.[qk]_proj", "*")
    """Globs over the linears: in the attention scores alone, and everywhere as in the paper."""
    seed: int = 0
    """Of the random terms."""


PRESETS = {
    "smallest": Config(DEMO, SMALLEST, selects=("layers.[234].self_attn.[qk]_proj",)),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Meta-Llama-3-8B", device="cuda"), PAPER),
}


def run(config: Config, progress: Progress) -> Answer:
    """One calibration a glob, six variants of its linears; raises as `prepared` does."""
    from experiments import roster

    roster.oats(config.budget)  # refused before the work
    some("selects", config.selects)
    within("seed", config.seed, 0, SEEDS)
    work = prepared(config.reading, config.amounts, progress)
    dense = kept.read(work)
    found, shares = {}, {}
    for select in config.selects:
        asked = work, config.budget, select, (*TERMS, *CONTROLS), progress
        for name, removed in swapped(*asked, seed=config.seed):
            found[select, name] = kept.read(work)
            shares[select, name] = found[select, name].of(dense), removed
    counts = map(str, map(interval, (dense.raw, dense.guarded)))
    rows: list[tuple[str, ...]] = [("", "dense", "0%", *counts, "1", "1")]
    for (select, name), sinks in found.items():
        ratios, removed = shares[select, name]
        left = map(_kept, (ratios.first_recall, ratios.later_recall))
        counts = map(str, map(interval, (sinks.raw, sinks.guarded)))
        rows.append((select, name, f"{removed:.0%}", *counts, *left))
    columns = ("where", "model", "removed", "as the paper counts", "guarded", "first", "later")
    caption = "Sinks a sequence; shares of the dense model's that are left. Removed: of ‖WD‖²."
    findings = [f for s in config.selects for f in _findings(s, found, shares)]
    units = {"dense, raw": dense.raw} | {f"{s}, {n}, raw": v.raw for (s, n), v in found.items()}
    units |= {f"{s}, {n}, first": r.first_recall.part for (s, n), (r, _) in shares.items()}
    return Answer(config, work.inputs, findings, [Table(columns, rows, caption)], units)


def _findings(select: str, found: dict, shares: dict) -> Iterator[Finding]:
    low, sparse = found[select, naming.LOW], found[select, naming.SPARSE]
    for words, a, b in (("raw", sparse.raw, low.raw), ("guarded", sparse.guarded, low.guarded)):
        told = interval(b - a), "sinks a sequence", ABOVE_ZERO, f"sparse: {interval(a)}"
        yield kept.finding("low-rank/table-1/more", f"{select}, {words}", *told)
    of = {name: ratios.first_recall for (s, name), (ratios, _) in shares.items() if s == select}
    far = f"with as much removed as from the sparse term: {_kept(of[naming.AS_FAR])}"
    for which, other, note in (
        ("own", naming.SPARSE, ""),
        ("own", DRAWN, ""),
        ("required", naming.PLAIN, f"; {far}"),
    ):
        told = recalls.difference(of[other], of[naming.LOW]), "of the first-token sinks"
        case = f"{select}: low-rank term alone less {other.removeprefix('control: ')}"
        control = f"{other}: {_kept(of[other])}{note}"
        yield kept.finding(f"low-rank/table-1/{which}", case, *told, ABOVE_ZERO, control)


def _kept(ratio: recalls.Ratio) -> str:
    return recalls.shown(recalls.share(ratio))


def sections(result: Answer) -> list[Section]:
    """Claims, then a row a model."""
    return answer.sections(result, "Sinks of OATS' terms and of their controls")
