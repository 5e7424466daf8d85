"""R-Sparse, figure 7: against GRIFFIN, after prompts of several lengths.

GRIFFIN keeps the neurons that the prompt used most, for all that follows; R-Sparse chooses anew at
every token. Both read as much of all linears; GRIFFIN reads attention whole, and so leaves out more
of the MLPs (at 40% more than its paper's half). Beside it stand as many neurons at random.
"""

from dataclasses import dataclass, replace

from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.intervened import DENSE, Variant
from experiments.parts.r_sparse import sparse_found
from experiments.parts.r_sparse.sparse import ONE_BLOCK, QUICK, SETTLED, WINDOWS, Gating, Sparse
from experiments.parts.work import DEMO, PAPER, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Section
from experiments.settings import Reading, between, some

OWN, RIVALS = "r-sparse", ("griffin", "griffin-random")


@dataclass(frozen=True)
class Config:
    """Both at equal bytes; of every window the first share is a dense prompt."""

    reading: Reading = DEMO
    amounts: Amounts = WINDOWS
    gating: Gating = SETTLED
    sparsities: tuple[float, ...] = (0.4,)
    """Shares of the linears' bytes that a token after the prompt does not read."""
    prompts: tuple[float, ...] = (0.25, 0.75)
    """Shares of a window that are its prompt, in the place of --gating.sparse-from."""


LLAMA = Reading("meta-llama/Llama-2-7b-hf", device="cuda")
PRESETS = {
    "smallest": Config(amounts=ONE_BLOCK, gating=QUICK, prompts=(0.5,)),
    "laptop": Config(),
    "paper": Config(LLAMA, PAPER, sparsities=(0.3, 0.4, 0.5), prompts=(0.125, 0.25, 0.5, 0.75)),
}


def run(config: Config, progress: Progress) -> Answer:
    """Score what follows every prompt under every method; raises as `prepared` does."""
    config.gating.check(config.sparsities)
    some("prompts", config.prompts)
    for prompt in config.prompts:
        between("prompts", prompt, 0, 0.95)
    work = prepared(config.reading, config.amounts, progress)
    variants = [Variant(m, s) for m in (OWN, *RIVALS) for s in config.sparsities]
    findings, tables, units, data = [], [], {}, {}
    for prompt in config.prompts:
        sparse = Sparse(work, replace(config.gating, sparse_from=prompt), progress)
        losses, where = sparse_found.judged(sparse, [DENSE, *variants]), f"after {prompt:.0%}"
        for s in config.sparsities:
            rival, chance = (Variant(method, s) for method in RIVALS)
            pairs = (("better", Variant(OWN, s), rival), ("prompt", rival, chance))
            for which, own, other in pairs:
                claim = f"r-sparse/figure-7/{which}"
                for finding in sparse_found.beside(claim, losses, own, [other]):
                    findings.append(finding._replace(case=f"{finding.case}, {where}"))
        table = sparse_found.table(losses)
        caption = f"The first {prompt:.0%} of every window are its prompt. {table.caption}"
        tables.append(table._replace(caption=caption))
        units |= {f"{name}, {where}": values for name, values in losses.units.items()}
        data[where] = sparse_found.lines(losses)
    return Answer(config, work.inputs, findings, tables, units, data)


def sections(result: Answer) -> list[Section]:
    """Claims, then losses after every prompt."""
    return answer.sections(result, "R-Sparse beside GRIFFIN")
