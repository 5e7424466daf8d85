"""R-Sparse, figure 5: accuracy and perplexity over sparsities, beside CATS and GRIFFIN.

The paper has XSum's ROUGE-L as well, whose texts are not here.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from experiments.findings import Finding, Region
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.intervened import DENSE, Variant
from experiments.parts.r_sparse import sparse_found
from experiments.parts.r_sparse.asked import NOTHING, QUESTIONS, Questions
from experiments.parts.r_sparse.sparse import ONE_BLOCK, QUICK, SETTLED, WINDOWS, Gating, Sparse
from experiments.parts.work import DEMO, PAPER, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Section
from experiments.settings import Reading

OWN, RIVALS = "r-sparse", ("cats", "griffin")
KEPT = Region(high=0.1)
"""Nats: a tenth of the perplexity, what "nearly unchanged up to 50%" is taken for."""


@dataclass(frozen=True)
class Config:
    """R-Sparse, CATS and GRIFFIN at rising sparsity on the same tokens and questions."""

    reading: Reading = DEMO
    amounts: Amounts = WINDOWS
    gating: Gating = SETTLED
    questions: Questions = QUESTIONS
    sparsities: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7)
    """Shares of the linears' bytes that a sparse token does not read."""
    asked: tuple[float, ...] = (0.6,)
    """Sparsities at which questions are asked, too; those of table 1 are not among them here."""


LLAMA = Reading("meta-llama/Llama-2-7b-hf", device="cuda")
SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
PRESETS = {
    "smallest": Config(amounts=ONE_BLOCK, gating=QUICK, questions=NOTHING, sparsities=(0.3, 0.6)),
    "laptop": Config(),
    "paper": Config(LLAMA, PAPER, SETTLED, Questions(items=1000), SPARSITIES, SPARSITIES),
}


def run(config: Config, progress: Progress) -> Answer:
    """Score and ask every method at every sparsity; raises as `prepared` does."""
    config.gating.check(config.sparsities)
    tasks = config.questions.drawn()
    work = prepared(config.reading, config.amounts, progress)
    variants = [Variant(m, s) for m in (OWN, *RIVALS) for s in config.sparsities]
    asked = [DENSE, *(v for v in variants if v.sparsity in config.asked)]
    sparse = Sparse(work, config.gating, progress)
    losses = sparse_found.judged(sparse, [DENSE, *variants], tasks, asked)
    return Answer(
        config,
        work.inputs,
        list(_findings(config, losses)),
        [sparse_found.table(losses)],
        losses.units,
        sparse_found.lines(losses),
    )


def _findings(config: Config, losses: sparse_found.Losses) -> Iterator[Finding]:
    for own in (Variant(OWN, s) for s in config.sparsities):
        rivals = [Variant(rival, own.sparsity) for rival in RIVALS]
        yield from sparse_found.beside("r-sparse/figure-5/better", losses, own, rivals)
        if own.sparsity <= 0.5:
            yield Finding(
                claim="r-sparse/figure-5/kept",
                case=str(own),
                effect=losses.less(own, DENSE),
                unit="nats a token above the dense model",
                over="windows",
                claimed=KEPT,
                control=f"dense: {losses.seen[DENSE].nll.mean():.3f}; {losses.reads(own)}",
            )


def sections(result: Answer) -> list[Section]:
    """Claims, then the lines and their numbers."""
    caption = "95% intervals over windows; the axis is the budget, what was read stands above."
    picture = sparse_found.over_sparsities(result.data, "r-sparse-figure-5", caption)
    return answer.sections(result, "Over sparsities", [picture])
