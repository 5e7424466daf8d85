"""R-Sparse, figures 1 and 3: which pairs of input channel and singular component matter?

The map of |x_j| σ_i |v_ji|, both sorted, is said to be concentrated in a corner, so that few
channels, and few components for the rest, suffice. A map of random numbers is concentrated too
once it is sorted: it stands beside. The map takes what is added for orthogonal: what a budget
leaves out is measured in the linear's output as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from experiments.findings import ABOVE_ZERO, Finding, Region
from experiments.intervals import interval
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.r_sparse import maps_page
from experiments.parts.work import DEMO, LAPTOP, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Section
from experiments.settings import Reading, between, within


@dataclass(frozen=True)
class Config:
    """Maps of contributions over sequences, and what one budget leaves out in two shapes."""

    reading: Reading = DEMO
    amounts: Amounts = LAPTOP
    every: int = 3
    """One block of so many is read."""
    select: str = "*"
    """Glob over the linears."""
    cells: int = 20
    """Parts that channels and components are cut into, an even number."""
    sparsity: float = 0.5
    """Share of the weight that a token does not read, where a budget is spent."""
    alpha: float = 0.95
    """Share of that budget that is channels; the rest is singular components."""
    seed: int = 0
    """Of the random weights and inputs beside."""


PRESETS = {
    "smallest": Config(amounts=SMALLEST, select="layers.2.self_attn.q*", cells=4),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Llama-2-7b-hf", device="cuda"), PAPER, cells=64),
}


def run(config: Config, progress: Progress) -> Answer:
    """Map every chosen linear on every sequence; raises as `prepared` does."""
    from bridge.decode.plan import Setting
    from experiments.parts.r_sparse import contribution, linears_read

    within("every", config.every, 1)
    within("cells", config.cells, 2)
    between("sparsity", config.sparsity, 0, 1)
    between("alpha", config.alpha, 0, 1)
    work = prepared(config.reading, config.amounts, progress)
    linears = linears_read.chosen(work.loaded.model, config.every, config.select)
    parts = contribution.of_linears(linears, progress)
    chance = contribution.chance_map(linears, config.amounts.seq, config.cells, config.seed)
    measure = partial(
        contribution.mapped, parts, config.cells, Setting(config.sparsity, config.alpha)
    )
    both = linears_read.measured(work, work.sequences.split(1), list(linears), measure, progress)
    maps = {name: np.stack([one.shares for one in found]) for name, found in both.items()}
    lost = {name: np.array([one.lost for one in found]) for name, found in both.items()}
    left = dict(zip(contribution.Lost._fields, linears_read.mean(lost).T, strict=True))
    corner = contribution.corner(linears_read.mean(maps), 0.5)
    units = {"corner": corner} | {f"lost, {name}": values for name, values in left.items()}
    findings = list(_findings(corner, float(contribution.corner(chance, 0.5)), left))
    data = {"chance": chance, "maps": {name: m.mean(axis=0) for name, m in maps.items()}}
    return Answer(config, work.inputs, findings, maps_page.tables(maps, lost), units, data)


def _findings(corner: np.ndarray, chance: float, left: dict) -> Iterator[Finding]:
    def found(which: str, case: str, values, claimed: Region, control: str) -> Finding:
        unit = {"m": "of Σ c", "a": "of Σ c²", "i": "of ‖y‖²"}[case[0]]
        key = f"r-sparse/figure-{which}"
        return Finding(key, case, interval(values), unit, "sequences", claimed, control)

    case, random = "map, half by half", f"random weights and inputs: {chance:.3g}"
    random += ", above 0.5 too" if chance > 0.5 else ""
    yield found("1/corner", case, corner, Region(low=0.5), random)
    yield found("1/structure", case, corner - chance, ABOVE_ZERO, random)
    for case, end in (("as the map counts", "_map"), ("in the output", "")):
        alone, both = left[f"channels{end}"], left[f"both{end}"]
        against = f"channels alone lose {interval(alone)}"
        yield found("3/components", case, alone - both, ABOVE_ZERO, against)
    against = f"random directions lose {interval(left['random'])}"
    yield found("3/directions", case, left["random"] - left["both"], ABOVE_ZERO, against)


def sections(result: Answer) -> list[Section]:
    """Claims, then maps."""
    return answer.sections(result, "Contributions", [maps_page.picture(result)])
