"""R-Sparse, table 2: does it go together with INT4 weights?

GPTQ in groups of 128 as in the paper; R-Sparse's thresholds and factors are of the INT4 weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from experiments.findings import Finding, Region
from experiments.intervals import interval
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.intervened import DENSE, Variant
from experiments.parts.r_sparse import sparse, sparse_found
from experiments.parts.r_sparse.asked import GENERATED, QUESTIONS, Questions
from experiments.parts.r_sparse.sparse import ONE_BLOCK, QUICK, SETTLED, WINDOWS, Gating, Sparse
from experiments.parts.r_sparse.sparse_found import Losses, judged
from experiments.parts.work import DEMO, PAPER, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Section
from experiments.settings import Reading

OWN, INT4 = "r-sparse", "int4"
ABOUT, SAME = Region(low=-0.035), Region(high=0.05)
"""Of the questions, where the paper loses 2.3 points; and nats a token."""


@dataclass(frozen=True)
class Config:
    """The dense model and R-Sparse, with weights as they are and in INT4."""

    reading: Reading = DEMO
    amounts: Amounts = WINDOWS
    gating: Gating = SETTLED
    questions: Questions = QUESTIONS
    sparsities: tuple[float, ...] = (0.5,)
    """Shares of the linears' bytes that a sparse token does not read."""


LLAMA = Reading("meta-llama/Llama-2-7b-hf", device="cuda")
PRESETS = {
    "smallest": Config(amounts=ONE_BLOCK, gating=QUICK, questions=GENERATED),
    "laptop": Config(),
    "paper": Config(LLAMA, PAPER, questions=Questions(items=1000), sparsities=(0.4, 0.5)),
}


def run(config: Config, progress: Progress) -> Answer:
    """Score and ask before and after quantisation; raises as `prepared` does."""
    config.gating.check(config.sparsities)
    tasks = config.questions.drawn()
    work = prepared(config.reading, config.amounts, progress)
    variants = [DENSE, *(Variant(OWN, s) for s in config.sparsities)]
    losses = judged(Sparse(work, config.gating, progress), variants, tasks, variants)
    with sparse.in_int4(work, progress):
        codes = judged(Sparse(work, config.gating, progress), variants, tasks, variants)
    for variant in variants:
        losses.seen[_int4(variant)] = codes.seen[variant]
        if variant in codes.right:
            losses.right[_int4(variant)] = codes.right[variant]
    findings = [f for s in config.sparsities for f in _findings(Variant(OWN, s), losses)]
    return Answer(config, work.inputs, findings, [sparse_found.table(losses)], losses.units)


def _int4(variant: Variant) -> Variant:
    name = INT4 if variant == DENSE else f"{INT4} {variant.method}"
    return Variant(name, variant.sparsity)


def _findings(own: Variant, losses: Losses) -> Iterator[Finding]:
    quantised, alone = _int4(own), losses.less(_int4(DENSE), DENSE)
    if own in losses.right:
        yield Finding(
            claim="r-sparse/table-2/accuracy",
            case=str(own),
            effect=losses.more_right(quantised, own),
            unit="of the questions that it answers more in INT4",
            over="questions",
            claimed=ABOUT,
            control=f"INT4 alone: {losses.more_right(_int4(DENSE), DENSE)}",
        )
    cost = losses.seen[quantised].nll - losses.seen[own].nll
    yield Finding(
        claim="r-sparse/table-2/together",
        case=str(own),
        effect=interval(cost - (losses.seen[_int4(DENSE)].nll - losses.seen[DENSE].nll)),
        unit="nats a token that INT4 costs more than it costs the dense model",
        over="windows",
        claimed=SAME,
        control=f"INT4 costs the dense model {alone}; {losses.reads(own, quantised)}",
    )


def sections(result: Answer) -> list[Section]:
    """Claims, then losses and answers."""
    return answer.sections(result, "R-Sparse with INT4 weights")
