"""Low-rank is required, figure 4: do heads segment a text by its sinks after pruning?

The dense model says which heads tag and which sink caught each token. A head segments where
k-means of what it writes finds those groups: ARI above that of random contiguous segments, since
neighbours are alike anyway. The same heads, tokens and groups are read in every pruned model.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from experiments.findings import ABOVE_ZERO, BELOW_ZERO, Finding
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.intervened import DENSE, Variant, intervened
from experiments.parts.low_rank import segmented
from experiments.parts.low_rank.strips import strips
from experiments.parts.tagged import finding, told
from experiments.parts.work import DEMO, LAPTOP, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Picture, Section, Table
from experiments.settings import BadOption, Reading, between, some, within

MANY, EIGHT = replace(LAPTOP, sequences=24), replace(SMALLEST, sequences=8)


@dataclass(frozen=True)
class Config:
    """Compress by every method at equal budget, and look for the dense model's segments."""

    reading: Reading = DEMO
    amounts: Amounts = MANY
    methods: tuple[str, ...] = ("magnitude", "wanda", "sparsegpt", "oats")
    """Names as in ctr compress."""
    sparsity: float = 0.5
    """Share of the weights that Wanda removes; the others keep as many numbers."""
    select: str = "*"
    """Glob over the linears that are compressed."""
    heads: int = 4
    """Heads to judge: those with most later sinks in the dense model, on the calibration text."""


PRESETS = {
    "smallest": Config(DEMO, EIGHT, ("wanda", "oats"), select="layers.2.self_attn.*"),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Meta-Llama-3-8B", device="cuda"), PAPER),
}


def run(config: Config, progress: Progress) -> Answer:
    """Label by the dense model, then read every model; raises as `prepared` does.

    Raises:
        BadOption: no head of the dense model has a later sink.
    """
    some("methods", config.methods)
    between("sparsity", config.sparsity, 0, 1)
    within("heads", config.heads, 1)
    work = prepared(config.reading, config.amounts, progress)
    of = segmented.segments(work, config.heads, progress)
    if not of.places:
        raise BadOption("--heads: no head has a later sink on this text; give a longer one")
    seen, looks = {}, {}
    for variant in [DENSE, *(Variant(m, config.sparsity) for m in config.methods)]:
        with intervened(work, variant, progress, select=config.select):
            seen[variant.method] = segmented.seen(work, of)
            looks[variant.method] = segmented.look(work, of)
    rows = [(name, *map(told, found)) for name, found in seen.items()]
    columns = ("model", "attention to the sinks", "ARI above segments", "η² above segments")
    caption = "Means over sequences with 95% intervals; heads " + ", ".join(
        f"{layer}.{head}" for layer, head in of.places
    )
    units = {f"{name}, {k}": v for name, s in seen.items() for k, v in s._asdict().items()}
    data = {"looks": looks, "shown": segmented.shown(work, of), "place": of.places[0]}
    found, tables = list(_findings(config, seen)), [Table(columns, rows, caption)]
    return Answer(config, work.inputs, found, tables, units, data)


def _findings(config: Config, seen: dict) -> Iterator[Finding]:
    place, unit, dense = "low-rank/figure-4/", "ARI above segments", seen["dense"].ari
    cuts = "random contiguous segments of the same sequences: 0"
    yield finding(place + "dense", f"{config.heads} heads", dense, unit, ABOVE_ZERO, cuts)
    for method in config.methods:
        own = seen[method].ari
        others = {"dense": dense}
        if method == "oats":
            others = {m: seen[m].ari for m in config.methods if m != "oats"}
        for other, its in others.items():
            which, claimed = ("kept", ABOVE_ZERO) if method == "oats" else ("lost", BELOW_ZERO)
            case, control = f"{method} less {other}, {config.sparsity:.0%}", f"{other}: {told(its)}"
            yield finding(place + which, case, own - its, unit, claimed, control)


def sections(result: Answer) -> list[Section]:
    """Claims, means, and the first head's outputs as colours in every model."""
    layer, head = result.data["place"]
    drawn = strips(result.data["looks"], result.data["shown"])
    caption = f"Outputs of head {layer}.{head}, coloured by three components; red: sinks."
    return answer.sections(result, "Segments", [Picture("low-rank-4", drawn, caption)])
