"""Low-rank is required, figure 1: attention and outputs of heads under OATS' terms, one at a time.

After the paper's picture of four configurations: dense, OATS, its sparse term alone, its low-rank
term alone. A picture of one head is no evidence: the heads with most later sinks are chosen on
other text and judged on all sequences, by the attention that they pay to the dense model's sinks
and by whether they write alike into what these caught. Plain sparse matrices stand beside.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from experiments import naming
from experiments.findings import ABOVE_ZERO, Finding
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.low_rank import segmented
from experiments.parts.low_rank.strips import maps
from experiments.parts.low_rank.swapped import TERMS, swapped
from experiments.parts.tagged import finding, told
from experiments.parts.work import DEMO, LAPTOP, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Picture, Section, Table
from experiments.settings import BadOption, Budget, Reading, some, within

EIGHT = replace(SMALLEST, sequences=8)


@dataclass(frozen=True)
class Config:
    """Swap OATS' terms into the selected linears, and read the dense model's tagging heads."""

    reading: Reading = DEMO
    amounts: Amounts = LAPTOP
    budget: Budget = field(default_factory=Budget)
    """Of OATS: the paper's sparsity and rank ratio."""
    selects: tuple[str, ...] = ("*.self_attn.[qk]_proj", "*")
    """Globs over the linears: in the attention scores alone, and everywhere as in the paper."""
    heads: int = 4
    """Heads to judge: those with most later sinks in the dense model, on the calibration text."""


PRESETS = {
    "smallest": Config(DEMO, EIGHT, selects=("layers.[234].self_attn.[qk]_proj",)),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Meta-Llama-3-8B", device="cuda"), PAPER),
}


def run(config: Config, progress: Progress) -> Answer:
    """One calibration a glob; raises as `prepared`, BadOption where no head has a later sink."""
    from experiments import roster

    roster.oats(config.budget)  # refused before the work
    some("selects", config.selects)
    within("heads", config.heads, 1)
    work = prepared(config.reading, config.amounts, progress)
    of = segmented.segments(work, config.heads, progress)
    if not of.places:
        raise BadOption("--heads: no head has a later sink on this text; give a longer one")
    dense, look = segmented.seen(work, of), segmented.look(work, of)
    seen, looks = {}, {}
    for select in config.selects:
        looks[select] = {"dense": look}
        for name, _ in swapped(work, config.budget, select, (*TERMS, naming.PLAIN), progress):
            seen[select, name] = segmented.seen(work, of)
            looks[select] |= {name: segmented.look(work, of)}
    every = {("", "dense"): dense} | seen
    rows = [(select, name, *map(told, found)) for (select, name), found in every.items()]
    columns = ("where", "model", "attention to the sinks", "ARI above segments", "η² above")
    caption = "Means over sequences with 95% intervals; heads " + ", ".join(
        f"{layer}.{head}" for layer, head in of.places
    )
    units = {f"{s}, {n}, {k}": v for (s, n), x in every.items() for k, v in x._asdict().items()}
    data = {"looks": looks, "shown": segmented.shown(work, of), "place": of.places[0]}
    findings = [f for s in config.selects for f in _findings(s, seen, dense)]
    return Answer(config, work.inputs, findings, [Table(columns, rows, caption)], units, data)


def _findings(select: str, seen: dict, dense: segmented.Seen) -> Iterator[Finding]:
    low, sparse, plain = (seen[select, n] for n in (naming.LOW, naming.SPARSE, naming.PLAIN))
    for which, name, unit in (
        ("attention", "caught", "of the attention"),
        ("segments", "ari", "ARI above segments"),
    ):
        a, b, whole, other = (getattr(x, name) for x in (sparse, low, dense, plain))
        control = f"sparse term: {told(a)}; dense: {told(whole)}; plain sparse: {told(other)}"
        case = f"{select}: low-rank term alone less sparse term alone"
        yield finding(f"low-rank/figure-1/{which}", case, b - a, unit, ABOVE_ZERO, control)


def sections(result: Answer) -> list[Section]:
    """Claims, means, and one head in every configuration."""
    layer, head = result.data["place"]
    pictures = [
        Picture(f"low-rank-1-{i}", maps(looks, result.data["shown"]), f"Head {layer}.{head}, {s}")
        for i, (s, looks) in enumerate(result.data["looks"].items())
    ]
    return answer.sections(result, "Four configurations, and a control", pictures)
