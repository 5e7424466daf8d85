"""R-Sparse, table 3: channels alone, low rank alone, or both, at equal bytes?

The paper: 66.25, 33.05 and 67.50% over eight tasks at 50% (Llama-2-7B). Here every one reads as
many numbers a token, true shapes. "r-sparse-moment" is ours: the low-rank term of least error.
"""

from dataclasses import dataclass

from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.intervened import DENSE, Variant
from experiments.parts.r_sparse import sparse_found
from experiments.parts.r_sparse.asked import NOTHING, Questions
from experiments.parts.r_sparse.sparse import ONE_BLOCK, QUICK, SETTLED, WINDOWS, Gating, Sparse
from experiments.parts.work import DEMO, PAPER, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Section
from experiments.settings import Reading

BOTH = ("r-sparse", "r-sparse-moment")
ALONE = {"sparse-only": ("teal", "sparse"), "low-rank-only": ("low-rank",)}
"""Channels by |x|, the paper's rule, and by |x| times their column's norm, its release's."""


@dataclass(frozen=True)
class Config:
    """Each term alone beside both, at the same share of bytes that is not read."""

    reading: Reading = DEMO
    amounts: Amounts = WINDOWS
    gating: Gating = SETTLED
    questions: Questions = NOTHING
    sparsities: tuple[float, ...] = (0.5,)
    """Shares of the linears' bytes that a sparse token does not read."""


PRESETS = {
    "smallest": Config(amounts=ONE_BLOCK, gating=QUICK),
    "laptop": Config(),
    "paper": Config(
        Reading("meta-llama/Llama-2-7b-hf", device="cuda"), PAPER, questions=Questions(items=1000)
    ),
}


def run(config: Config, progress: Progress) -> Answer:
    """Score the same tokens under every term; raises as `prepared` does."""
    config.gating.check(config.sparsities)
    tasks = config.questions.drawn()
    work = prepared(config.reading, config.amounts, progress)
    methods = (*BOTH, *(method for alone in ALONE.values() for method in alone))
    # Low rank alone first: its SVDs hold those of the others.
    variants = [Variant(m, s) for m in reversed(methods) for s in config.sparsities]
    sparse = Sparse(work, config.gating, progress)
    losses = sparse_found.judged(sparse, [DENSE, *variants], tasks, [DENSE, *variants])
    findings = [
        finding
        for s in config.sparsities
        for which, alone in ALONE.items()
        for both in BOTH
        for finding in sparse_found.beside(
            f"r-sparse/table-3/{which}", losses, Variant(both, s), [Variant(m, s) for m in alone]
        )
    ]
    return Answer(config, work.inputs, findings, [sparse_found.table(losses)], losses.units)


def sections(result: Answer) -> list[Section]:
    """Claims, then losses."""
    return answer.sections(result, "Channels, low rank, or both")
