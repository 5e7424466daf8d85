"""Low-rank is required, figure 3: is sparse plus low rank closer to the weights than sparse alone?

Δ_W = ‖W - Ŵ‖² / parameters, the mean squared change of a weight, block by block and averaged over
blocks. Every method keeps as many numbers. Beside it stands ‖(W - Ŵ)D‖ / ‖WD‖ with D = diag √E[x²],
the error that OATS and Wanda do minimise.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from experiments.findings import BELOW_ZERO, Finding
from experiments.intervals import interval
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.intervened import Variant, intervened
from experiments.parts.panels import panels
from experiments.parts.work import DEMO, LAPTOP, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Picture, Section, Table
from experiments.settings import BadOption, Reading, between, some


@dataclass(frozen=True)
class Config:
    """Compress by every method at equal budget, and measure how far every block moved."""

    reading: Reading = DEMO
    amounts: Amounts = LAPTOP
    methods: tuple[str, ...] = ("magnitude", "wanda", "sparsegpt", "oats")
    """Names as in ctr compress; oats is compared with each of the others."""
    sparsities: tuple[float, ...] = (0.5, 0.7)
    """Shares of the weights that Wanda removes; the others keep as many numbers."""
    select: str = "*"
    """Glob over the linears that are compressed: of two blocks at least."""


PRESETS = {
    "smallest": Config(DEMO, SMALLEST, ("magnitude", "oats"), (0.5,), "*.[kv]_proj"),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Meta-Llama-3-8B", device="cuda"), PAPER),
}


def run(config: Config, progress: Progress) -> Answer:
    """Compress once a method and sparsity; raises as `prepared`, BadOption without oats."""
    from experiments.parts.low_rank.moved import moved

    some("methods", config.methods)
    if "oats" not in config.methods or len(config.methods) < 2:
        raise BadOption("--methods: give oats, and others to compare it with")
    for sparsity in config.sparsities:
        between("sparsities", sparsity, 0, 1)
    work = prepared(config.reading, config.amounts, progress)
    found = {}
    for variant in [Variant(m, s) for s in config.sparsities for m in config.methods]:
        with intervened(work, variant, progress, select=config.select) as done:
            if done is not None:
                found[variant] = moved(done)
    rows = [
        (str(v), f"{b.density:.2%}", str(interval(1e4 * b.weight)), str(interval(b.scaled)))
        for v, b in found.items()
    ]
    columns = ("model", "kept", "Δ_W, 1e-4", "‖(W - Ŵ)D‖ / ‖WD‖")
    tables = [Table(columns, rows, "Mean over blocks, with 95% intervals over blocks.")]
    units = {f"{v}, Δ_W": b.weight for v, b in found.items()}
    units |= {f"{v}, scaled error": b.scaled for v, b in found.items()}
    return Answer(config, work.inputs, list(_findings(config, found)), tables, units)


def _findings(config: Config, found: dict) -> Iterator[Finding]:
    for sparsity in config.sparsities:
        oats = found[Variant("oats", sparsity)]
        for other in (Variant(m, sparsity) for m in config.methods if m != "oats"):
            its, nearer = found[other], interval(oats.scaled / found[other].scaled - 1)
            yield Finding(
                claim="low-rank/figure-3/closer",
                case=f"oats less {other}, as a share of {other}",
                effect=interval(oats.weight / its.weight - 1),
                unit="of its Δ_W",
                over="blocks",
                claimed=BELOW_ZERO,
                control=f"as many numbers kept ({its.density:.2%}, {oats.density:.2%}); "
                f"the same in the scaled error: {nearer}",
            )


def sections(result: Answer) -> list[Section]:
    """Claims, means, and Δ_W over depth."""
    config, units = result.config, result.units
    lines = {
        f"Δ_W, {s:.0%} removed": {
            m: np.stack([units[f"{Variant(m, s)}, Δ_W"]] * 3, axis=1) for m in config.methods
        }
        for s in config.sparsities
    }
    depth = [str(i) for i in range(len(next(iter(units.values()))))]
    drawn = panels(depth, lines, "block", log=True)
    return answer.sections(result, "How far the weights moved", [Picture("low-rank-3", drawn, "")])
