"""QERA (arXiv:2410.06040), the table of perplexity after quantisation: who mends best?

Codes of few bits and a low-rank term of equal rank, each method fitted to the dense model's
inputs. Controls: no term (rounding, GPTQ), a term in a random subspace, and rounding with more
bits a code in as much storage as the term takes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from experiments.findings import ABOVE_ZERO, Finding
from experiments.intervals import interval
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.work import DEMO, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Picture, Section, Table
from experiments.settings import Reading, some, within

SHORT = Amounts(calibration=8, windows=8, context=256)
EXACT, DIAGONAL, LQER, RICHER = "QERA-exact", "QERA-approximate", "LQER", "rounding, more bits"
METHODS = ("rounding", "GPTQ", "random subspace", "ZeroQuant-V2", "LoftQ", LQER, DIAGONAL, EXACT,
           RICHER)  # fmt: skip
COMPARED = (*(("exact", EXACT, other) for other in ("ZeroQuant-V2", LQER, "LoftQ", DIAGONAL)),
            ("approximate", DIAGONAL, LQER), ("bits", EXACT, RICHER))  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Quantise the linears, mend them every way, and predict the windows."""

    reading: Reading = DEMO
    amounts: Amounts = SHORT
    methods: tuple[str, ...] = METHODS
    """As ctr experiment reconstruction names them."""
    grid: Literal["nearest", "mxint"] = "mxint"
    """Scales of floats, or powers of two."""
    bits: int = 3
    """Of a code."""
    group: int = 32
    """Columns that share a scale."""
    rank: int = 32
    """Of the low-rank terms."""
    select: str = "*"
    """Glob over the linears that are quantised."""


PRESETS = {
    "smallest": Config(amounts=SMALLEST, select="layers.2.self_attn.*"),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Meta-Llama-3.1-8B", device="cuda"), PAPER, rank=64),
}


def run(config: Config, progress: Progress) -> Answer:
    """Quantise once, stand each way in the model; raises as `prepared` and the quantisers do."""
    from experiments.parts.qera import mended
    from experiments.parts.standing import predicted

    some("methods", config.methods)
    within("rank", config.rank, 1)
    work = prepared(config.reading, config.amounts, progress)
    grid = mended.quantizer(config.grid, config.bits, config.group)
    found = mended.mended(work, grid, config.rank, config.methods, config.select, progress)
    with progress.task("dense", len(work.windows)) as advance:
        dense = predicted(work, work.windows, advance)
    units, rows = {"dense": dense.nll}, [("dense", "–", f"{dense.ppl:.4g}", "0")]
    for name, operators in found.items():
        standing = mended.standing(work.loaded.model, operators)
        with standing, progress.task(name, len(work.windows)) as advance:
            after = predicted(work, work.windows, advance)
        units[name], above = after.nll, interval(after.nll - dense.nll)
        rows.append((name, f"{mended.bits(operators):.2f}", f"{after.ppl:.4g}", str(above)))
    caption = (
        "Bits count codes, scales, and factors of 16 bits. 95% intervals over windows, paired."
    )
    columns = ("method", "bits a weight", "perplexity", "nats above dense")
    findings = list(_findings(units))
    return Answer(config, work.inputs, findings, [Table(columns, rows, caption)], units)


def _findings(units: dict) -> Iterator[Finding]:
    for which, ours, other in COMPARED:
        if ours in units and other in units:
            beside = next((n for n in ("random subspace", "rounding") if n in units), "dense")
            yield Finding(
                f"qera/ptq/{which}", f"{ours} beside {other}", interval(units[other] - units[ours]),
                "nats a token", "windows", ABOVE_ZERO,
                f"{beside} above {ours}: {interval(units[beside] - units[ours])}",
            )  # fmt: skip


def sections(result: Answer) -> list[Section]:
    """Claims, perplexities, and the losses as a picture."""
    from experiments.parts.qera.losses import above_dense

    picture = Picture("losses", above_dense(result.units), "95% intervals over windows, paired.")
    return answer.sections(result, "Quantised and mended", [picture])
