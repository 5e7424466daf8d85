"""R-Sparse, table 3: channels alone, low rank alone, or both, at equal bytes?

The paper: 66.25, 33.05 and 67.50% over eight tasks at 50% (Llama-2-7B). Here every one reads as
many numbers a token, true shapes. "r-sparse-moment" is ours: the low-rank term of least error.
"""

from dataclasses import dataclass

from experiments.parts import answer, sparse_found
from experiments.parts.answer import Answer
from experiments.parts.intervened import Variant
from experiments.parts.sparse import (
    AS_PUBLISHED,
    ONE_BLOCK,
    QUICK,
    SETTLED,
    WINDOWS,
    Gating,
    Sparse,
    check,
)
from experiments.parts.sparse_found import DENSE
from experiments.parts.work import DEMO, PAPER, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Section
from experiments.settings import Reading

OWN = ("r-sparse", "r-sparse-moment")
ALONE = {"sparse-only": ("teal", "sparse"), "low-rank-only": ("low-rank",)}


@dataclass(frozen=True)
class Config:
    """Each term alone beside both, at the same share of bytes that is not read."""

    reading: Reading = DEMO
    amounts: Amounts = WINDOWS
    gating: Gating = SETTLED
    sparsities: tuple[float, ...] = (0.5,)
    """Shares of the linears' bytes that a sparse token does not read."""


PRESETS = {
    "smallest": Config(amounts=ONE_BLOCK, gating=QUICK),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Llama-2-7b-hf", device="cuda"), PAPER, AS_PUBLISHED),
}


def run(config: Config, progress: Progress) -> Answer:
    """Score the same tokens under every term; raises as `prepared` does."""
    check(config.gating, config.sparsities)
    work = prepared(config.reading, config.amounts, progress)
    sparse, found = Sparse(work, config.gating, progress), {}
    alone = [method for methods in ALONE.values() for method in methods]
    for s in config.sparsities:
        found |= {Variant(m, s): sparse.seen(m, s) for m in (*OWN, *alone)}
    losses = sparse_found.gathered({DENSE: sparse.seen("dense", 0.0), **found})
    findings = [
        finding
        for s in config.sparsities
        for which, methods in ALONE.items()
        for own in OWN
        for finding in sparse_found.beside(
            f"r-sparse/table-3/{which}", losses, Variant(own, s), [Variant(m, s) for m in methods]
        )
    ]
    tables = [sparse_found.table(losses, "r-sparse")]
    return Answer(config, work.inputs, findings, tables, losses.units, sparse_found.lines(losses))


def sections(result: Answer) -> list[Section]:
    """Claims, then losses."""
    return answer.sections(result, "Channels, low rank, or both")
