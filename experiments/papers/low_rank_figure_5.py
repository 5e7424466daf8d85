"""Low-rank is required, figure 5: how much do k examples help a pruned model?

The paper asks MMLU of 8B models. A 135M model is near chance there, so smaller presets ask tasks on
which it can gain (`ctr experiment few-shot`). The gap is accuracy with k examples less accuracy
without, on the same items in every model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from experiments.fewshot.power import detectable
from experiments.findings import ABOVE_ZERO, BELOW_ZERO, Finding
from experiments.intervals import interval
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.intervened import DENSE, Variant, intervened
from experiments.parts.panels import panels, points
from experiments.parts.shots import answered, chosen
from experiments.parts.work import DEMO, LAPTOP, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Picture, Section, Table
from experiments.settings import Reading, between, some, within


@dataclass(frozen=True)
class Config:
    """Ask every model every item after 0, 1, ... examples."""

    reading: Reading = DEMO
    amounts: Amounts = LAPTOP
    tasks: Path | None = None
    """Folder with arc_easy.jsonl and others. Default: $CTR_DATA/tasks, if it is set."""
    names: tuple[str, ...] = ("labels", "segment-copy")
    """Tasks to ask."""
    shots: int = 5
    """Most examples before an item."""
    limit: int = 100
    """Items of a task."""
    seed: int = 0
    """Draws items and examples."""
    methods: tuple[str, ...] = ("magnitude", "wanda", "sparsegpt", "oats")
    """Names as in ctr compress; each keeps as many numbers as Wanda at the sparsity."""
    sparsity: float = 0.5
    """Share of the weights that Wanda removes."""
    select: str = "*"
    """Glob over the linears that are compressed."""


_QUICK = {"names": ("labels",), "shots": 2, "limit": 12, "methods": ("wanda", "oats")}
_LARGE = {"names": ("mmlu",), "limit": 14_042}
PRESETS = {
    "smallest": Config(amounts=SMALLEST, select="layers.2.self_attn.*", **_QUICK),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Meta-Llama-3-8B", device="cuda"), PAPER, **_LARGE),
}


def run(config: Config, progress: Progress) -> Answer:
    """Raises as `prepared` does, BadOption for tasks that cannot be asked."""
    some("names", config.names)
    some("methods", config.methods)
    between("sparsity", config.sparsity, 0, 1)
    within("shots", config.shots, 1)
    tasks = chosen(config.names, config.tasks, config.limit, config.seed)
    work = prepared(config.reading, config.amounts, progress)
    right, gaps = {}, {f"gain, {name}": {} for name in config.names}
    for variant in [DENSE, *(Variant(m, config.sparsity) for m in config.methods)]:
        with intervened(work, variant, progress, select=config.select):
            found = answered(work, tasks, range(config.shots + 1), progress, variant.method)
        for task, by_shots in zip(tasks, found, strict=True):
            own = right[task.name, variant.method] = np.array(by_shots, dtype=float)
            gaps[f"gain, {task.name}"][variant.method] = points(own - own[0])
    rows = [(*key, *(f"{one:.2f}" for one in own.mean(axis=1))) for key, own in right.items()]
    columns = ("task", "model", *(f"{k} examples" for k in range(config.shots + 1)))
    table = Table(columns, rows, f"Accuracy on {config.limit} items of each task.")
    units = {f"{t}, {m}, {k}": row for (t, m), own in right.items() for k, row in enumerate(own)}
    return Answer(config, work.inputs, [*_findings(config, right)], [table], units, {"gaps": gaps})


def _findings(config: Config, right: dict) -> Iterator[Finding]:
    gain, share = {key: own[-1] - own[0] for key, own in right.items()}, f"{config.sparsity:.0%}"
    unit, sparse = f"accuracy, {config.shots} examples less none", {*config.methods} - {"oats"}
    for task, method in product(config.names, config.methods):
        which, claimed = ("oats", ABOVE_ZERO) if method == "oats" else ("less", BELOW_ZERO)
        for other in sorted(sparse) if method == "oats" else ["dense"]:
            less, case = gain[task, method] - gain[task, other], f"{task}: {method} less {other}"
            told = interval(less), unit, "items", claimed, f"{other}: {interval(gain[task, other])}"
            case, note = f"{case}, {share}", f"detectable: {detectable(less):.3f}"
            yield Finding(f"low-rank/figure-5/{which}", case, *told, note)


def sections(result: Answer) -> list[Section]:
    """Claims, accuracies, and the gap over the number of examples."""
    counts = [str(k) for k in range(result.config.shots + 1)]
    drawn = panels(counts, result.data["gaps"], "examples", mark=0.0)
    return answer.sections(result, "Gaps", [Picture("low-rank-5", drawn, "95% intervals.")])
