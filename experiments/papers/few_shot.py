"""Which tasks does the model learn from examples, and what does compression leave of it?

A 135M model is near chance on MMLU, so a gain there proves nothing: tasks are chosen by a gain of
the dense model that is significant over all tasks asked; the compressed models answer those.
"""

from dataclasses import dataclass
from pathlib import Path

from experiments.parts import answer, shots_page
from experiments.parts.answer import Answer
from experiments.parts.intervened import Variant, intervened
from experiments.parts.shots import Shots, adjusted, answered, chosen, wrong
from experiments.parts.work import DEMO, LAPTOP, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Section
from experiments.settings import Reading, between, some, within


@dataclass(frozen=True)
class Config:
    """Ask the dense model with and without examples, then the compressed ones where it gains."""

    reading: Reading = DEMO
    amounts: Amounts = LAPTOP
    tasks: Path | None = None
    """Folder with arc_easy.jsonl and others. Default: $CTR_DATA/tasks, if it is set."""
    names: tuple[str, ...] = ()
    """Tasks to ask; none: all generated ones, and all that the folder has."""
    shots: int = 5
    """Examples before every item."""
    limit: int = 100
    """Items of a task."""
    seed: int = 0
    """Draws items and examples."""
    alpha: float = 0.01
    """A task counts where the dense gain has p below it, by Holm over the tasks."""
    methods: tuple[str, ...] = ("magnitude", "wanda", "sparsegpt", "oats")
    """Names as in ctr compress; each keeps as many numbers as Wanda at the sparsity."""
    sparsity: float = 0.5
    """Share of the weights that Wanda removes."""
    select: str = "*"
    """Glob over the linears that are compressed."""


_QUICK = {"names": ("labels",), "shots": 4, "limit": 16, "methods": ("wanda",), "alpha": 0.99}
PRESETS = {
    "smallest": Config(amounts=SMALLEST, select="layers.2.self_attn.*", **_QUICK),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Meta-Llama-3-8B", device="cuda"), PAPER, limit=400),
}


def run(config: Config, progress: Progress) -> Answer:
    """Dense first; raises as `prepared` does, BadOption for tasks that cannot be asked."""
    some("methods", config.methods)
    between("sparsity", config.sparsity, 0, 1)
    within("shots", config.shots, 1)
    tasks = chosen(config.names, config.tasks, config.limit, config.seed)
    work = prepared(config.reading, config.amounts, progress)
    ks = (0, config.shots)
    found = answered(work, tasks, ks, progress, "dense")
    dense = {t.name: Shots(*both) for t, both in zip(tasks, found, strict=True)}
    p = adjusted(dense)
    kept = [task for task in tasks if p[task.name] < config.alpha and dense[task.name].gain[0] > 0]
    misled = answered(work, [*map(wrong, kept)], ks[1:], progress, "wrong answers")
    by: dict[str, dict[str, Shots]] = {"dense": dense}
    by["misled"] = {
        t.name: Shots(dense[t.name].none, right[0]) for t, right in zip(kept, misled, strict=True)
    }
    for method in config.methods if kept else ():
        with intervened(work, Variant(method, config.sparsity), progress, select=config.select):
            found = answered(work, kept, ks, progress, method)
        by[method] = {t.name: Shots(*both) for t, both in zip(kept, found, strict=True)}
    units, tables = shots_page.units(by), shots_page.tables(by, p, tasks)
    return Answer(
        config, work.inputs, list(shots_page.findings(by, p, config.shots)), tables, units
    )


def sections(result: Answer) -> list[Section]:
    """Claims, then the tasks, then what is left of their gains."""
    return answer.sections(result, "Gains from examples", shots_page.pictures(result))
