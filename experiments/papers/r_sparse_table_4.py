"""R-Sparse, table 4: is a searched recipe better than the same one everywhere?

The paper's evolution chooses the low-rank share of every linear at one sparsity. "knapsack" is
ours: it chooses how much every linear reads as well. All read as much, on tokens no search saw.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from experiments.findings import ABOVE_ZERO, Finding
from experiments.intervals import interval
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.intervened import DENSE, Variant
from experiments.parts.r_sparse import sparse_found
from experiments.parts.r_sparse.searched import Search, evolution, knapsacks
from experiments.parts.r_sparse.sparse import ONE_BLOCK, QUICK, SETTLED, WINDOWS, Gating, Sparse
from experiments.parts.r_sparse.sparse_found import Losses
from experiments.parts.work import DEMO, PAPER, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Section
from experiments.settings import Reading

UNIFORM, CHANNELS, KNAPSACK, EVOLUTION = "r-sparse", "teal", "knapsack", "evolution"


@dataclass(frozen=True)
class Config:
    """Search at every sparsity, and score uniform and found recipes on the same tokens."""

    reading: Reading = DEMO
    amounts: Amounts = WINDOWS
    gating: Gating = SETTLED
    search: Search = Search()  # noqa: RUF009  (immutable)
    sparsities: tuple[float, ...] = (0.4, 0.6)
    """Shares of the linears' bytes that a sparse token does not read."""
    evolved: tuple[float, ...] = (0.6,)
    """Those at which the paper's search runs, too."""


LLAMA, SPARSITIES = Reading("meta-llama/Llama-2-7b-hf", device="cuda"), (0.4, 0.5, 0.6)
AS_PAPER = Search(samples=16, length=2048, population=32, generations=5, group=28)
PRESETS = {
    "smallest": Config(amounts=ONE_BLOCK, gating=QUICK, search=Search(1, 16, 4, 1), evolved=(0.6,)),
    "laptop": Config(),
    "paper": Config(LLAMA, PAPER, SETTLED, AS_PAPER, SPARSITIES, SPARSITIES),
}


def run(config: Config, progress: Progress) -> Answer:
    """Search, then score; raises as `prepared` does."""
    config.gating.check(config.sparsities)
    config.search.check(config.amounts.calibration)
    work = prepared(config.reading, config.amounts, progress)
    sparse = Sparse(work, config.gating, progress)
    plans = {
        Variant(KNAPSACK, s): plan
        for s, plan in knapsacks(sparse, config.search, config.sparsities).items()
    }
    for s in config.evolved:
        plans[Variant(EVOLUTION, s)], trials = evolution(sparse, config.search, s)
        progress.say(f"evolution at {s:.0%}: {trials} trials")
    uniform = [Variant(m, s) for m in (UNIFORM, CHANNELS) for s in config.sparsities]
    losses = sparse_found.judged(sparse, [DENSE, *uniform])
    for variant, plan in plans.items():
        losses.seen[variant] = sparse.under(str(variant), plan)
    findings = list(_findings(config, losses))
    return Answer(config, work.inputs, findings, [sparse_found.table(losses)], losses.units)


def _findings(config: Config, losses: Losses) -> Iterator[Finding]:
    low, high = min(config.sparsities), max(config.sparsities)
    for method in (KNAPSACK, EVOLUTION):
        gain = {}
        for s in config.sparsities:
            found, same, none = (Variant(m, s) for m in (method, UNIFORM, CHANNELS))
            if found in losses.seen:
                gain[s] = losses.seen[same].nll - losses.seen[found].nll
                for one in sparse_found.beside("r-sparse/table-4/searched", losses, found, [same]):
                    beside = f"{CHANNELS} everywhere: {losses.less(none, found)} worse"
                    yield one._replace(control=f"{one.control}; {beside}")
        if low in gain and high in gain and low < high:
            yield Finding(
                claim="r-sparse/table-4/grows",
                case=f"{method}, {high:.0%} against {low:.0%}",
                effect=interval(gain[high] - gain[low]),
                unit="nats a token that it gains more",
                over="windows",
                claimed=ABOVE_ZERO,
                control=f"at {low:.0%} it gains {interval(gain[low])}",
            )


def sections(result: Answer) -> list[Section]:
    """Claims, then losses."""
    return answer.sections(result, "Searched and uniform recipes")
