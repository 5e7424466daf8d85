"""R-Sparse, table 1: better than CATS, GRIFFIN and ReLUfication, nearly as good as dense?

Eight common-sense tasks at 40 and 50% in the paper. Here all read as many numbers of all linears
a token; CATS, which reads attention and gates whole, cannot read less than these. ReLU has no
budget: what it reads is counted. Beside the paper's: TEAL, and a low-rank term of least error.
"""

from dataclasses import dataclass

from experiments.findings import Finding, Region
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.intervened import DENSE, Variant
from experiments.parts.r_sparse import sparse_found
from experiments.parts.r_sparse.asked import GENERATED, QUESTIONS, Questions
from experiments.parts.r_sparse.sparse import ONE_BLOCK, QUICK, SETTLED, WINDOWS, Gating, Sparse
from experiments.parts.work import DEMO, PAPER, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Section
from experiments.settings import Reading, some

OWN = ("r-sparse", "r-sparse-moment")
RIVALS = ("cats", "griffin", "relu")
NEAR = Region(low=-0.03)
"""Of the questions: the paper's table keeps the dense model's mean to about three points."""


@dataclass(frozen=True)
class Config:
    """Every method at every sparsity on the same tokens and questions, half of them dense."""

    reading: Reading = DEMO
    amounts: Amounts = WINDOWS
    gating: Gating = SETTLED
    questions: Questions = QUESTIONS
    sparsities: tuple[float, ...] = (0.4, 0.5)
    """Shares of the linears' bytes that a sparse token does not read."""
    methods: tuple[str, ...] = ("r-sparse", "r-sparse-moment", "teal", "cats", "griffin", "relu")
    """Names of ctr experiment activation."""
    asked: tuple[float, ...] = (0.5,)
    """Sparsities at which questions are asked, too."""


LLAMA = Reading("meta-llama/Llama-2-7b-hf", device="cuda")
PRESETS = {
    "smallest": Config(
        amounts=ONE_BLOCK,
        gating=QUICK,
        questions=GENERATED,
        sparsities=(0.4,),
        methods=("r-sparse", "cats", "griffin", "relu"),
        asked=(0.4,),
    ),
    "laptop": Config(),
    "paper": Config(LLAMA, PAPER, questions=Questions(items=1000), asked=(0.4, 0.5)),
}


def run(config: Config, progress: Progress) -> Answer:
    """Score and ask every method; raises as `prepared` does."""
    config.gating.check(config.sparsities)
    some("methods", config.methods)
    tasks = config.questions.drawn()
    work = prepared(config.reading, config.amounts, progress)
    variants = [Variant(m, s) for m in config.methods for s in config.sparsities if m != "relu"]
    if "relu" in config.methods:
        variants.append(Variant("relu"))  # at whatever it reads
    asked = [DENSE, *(v for v in variants if v.sparsity in config.asked or v.method == "relu")]
    sparse = Sparse(work, config.gating, progress)
    losses = sparse_found.judged(sparse, [DENSE, *variants], tasks, asked)
    findings = []
    for own in (Variant(m, s) for s in config.sparsities for m in OWN):
        if own in losses.right:
            findings.append(_near(own, losses))
        for rival in RIVALS:
            other = Variant(rival, 0.0 if rival == "relu" else own.sparsity)
            findings += sparse_found.beside(f"r-sparse/table-1/{rival}", losses, own, [other])
    return Answer(config, work.inputs, findings, [sparse_found.table(losses)], losses.units)


def _near(own: Variant, losses: sparse_found.Losses) -> Finding:
    return Finding(
        claim="r-sparse/table-1/near-dense",
        case=str(own),
        effect=losses.more_right(own, DENSE),
        unit="of the questions that it answers more than the dense model",
        over="questions",
        claimed=NEAR,
        control=f"dense answers {losses.right[DENSE].mean():.1%}; {losses.reads(own)}",
    )


def sections(result: Answer) -> list[Section]:
    """Claims, then losses and answers."""
    return answer.sections(result, "R-Sparse beside other methods")
