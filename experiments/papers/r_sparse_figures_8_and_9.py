"""R-Sparse, figures 8 and 9: are contributions the same over samples and over domains of text?

Sorted maps of one linear on two texts, by their distance ½ Σ |M - M'|, beside the distance to the
same role's map in the next block that is read, on the same text. And what it is for: do thresholds
of one text serve another? They may cost a tenth of what the sparsity itself costs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from experiments.findings import BELOW_ZERO, Finding
from experiments.intervals import interval
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.r_sparse import stable_page
from experiments.parts.work import DEMO, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Section
from experiments.settings import Reading, between, within

LEAST, FEW = replace(SMALLEST, sequences=4), Amounts(4, windows=8, context=192, sequences=8)
_APART = "distance of maps, less that of blocks"
ASKED = {
    "samples less blocks": ("8/samples", "pairs of sequences", _APART),
    "domain less blocks": ("9/domains", "sequences", _APART),
    "first's above a tenth": ("9/thresholds", "windows", "nats a token above a tenth of the cost"),
}


@dataclass(frozen=True)
class Config:
    """Map several kinds of text, and decode each with thresholds of the first."""

    reading: Reading = DEMO
    amounts: Amounts = FEW
    more: tuple[Path, ...] = ()
    """More domains, a file each: text, or JSON lines of "text" or of questions. There are always
    --text, documentation strings and Python code."""
    every: int = 10
    """One block of so many is mapped."""
    select: str = "*"
    """Glob over the linears that are mapped."""
    cells: int = 20
    """Parts that channels and components are cut into."""
    sparsity: float = 0.5
    """Share of the linears' bytes that R-Sparse's uniform recipe does not read."""
    keep: int = 512
    """Calibration tokens that thresholds are taken of."""


PRESETS = {
    "smallest": Config(amounts=LEAST, every=1, select="layers.[12].self_attn.k*", keep=64),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Llama-2-7b-hf", device="cuda"), PAPER, keep=2048),
}


def run(config: Config, progress: Progress) -> Answer:
    """Map, then decode; raises as `prepared` and `domains` do."""
    from experiments.parts.r_sparse import linears_read, stable, thresholds
    from experiments.parts.r_sparse.domains import domains

    within("every", config.every, 1)
    within("cells", config.cells, 2)
    within("sequences", config.amounts.sequences, 4)
    between("sparsity", config.sparsity, 0, 1)
    work = prepared(config.reading, config.amounts, progress)
    texts = domains(work.loaded, config.reading, config.amounts, config.more)
    linears = linears_read.chosen(work.loaded.model, config.every, config.select)
    maps = stable.mapped(work, texts, linears, config.cells, progress)
    recipes = thresholds.recipes(work, texts, config.sparsity, config.keep, progress)
    served = thresholds.served(work, texts, recipes, progress)
    units = stable.distances(maps) | thresholds.units(served)
    first = texts[0].name
    tables = [stable_page.distances(units), stable_page.served(first, served)]
    return Answer(config, work.inputs, list(_findings(first, units)), tables, units)


def _findings(first: str, units: Mapping[str, np.ndarray]) -> Iterator[Finding]:
    for name, values in units.items():
        what, _, text = name.partition(", ")
        if what not in ASKED:
            continue
        which, over, unit = ASKED[what]
        beside = text if which == "8/samples" else first
        control = f"two blocks on {beside}: {interval(units[f'blocks, {beside}'])}"
        if which == "9/thresholds":
            cost = interval(units[f"own, {text}"] - units[f"dense, {text}"])
            control = f"sparsity costs {cost}, with its own thresholds"
        case = text if beside == text else f"{text} beside {first}"
        key = f"r-sparse/figure-{which}"
        yield Finding(key, case, interval(values), unit, over, BELOW_ZERO, control)


def sections(result: Answer) -> list[Section]:
    """Claims, then distances and thresholds."""
    return answer.sections(result, "Over texts", [stable_page.picture(result.units)])
