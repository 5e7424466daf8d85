"""A3 (arXiv:2505.12942), the tables of perplexity: A3 beside low rank in every matrix, one budget.

Baselines after the paper's: the SVD of each weight alone, scaled by its inputs (as ASVD), and in
their whole second moment (as SVD-LLM). Controls: A3's own selection by weights alone, at random.
"""

from dataclasses import dataclass, replace
from typing import Any

from experiments.findings import ABOVE_ZERO, Finding
from experiments.intervals import interval
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.work import DEMO, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Picture, Section, Table
from experiments.settings import SEEDS, Reading, between, some, within

A3_ITSELF = "A3"
SVDS = ("SVD", "scaled SVD", "moment SVD")
CONTROLS = ("by weights", "at random")


SHORT = Amounts(calibration=8, windows=8, context=256)


@dataclass(frozen=True)
class Config:
    """Remove the same share of the weights every way."""

    reading: Reading = DEMO
    amounts: Amounts = SHORT
    compressions: tuple[float, ...] = (0.2,)
    """Share of the weights that is removed, at least; A3 rounds down to whole coordinates."""
    seed: int = 0
    """Of the random control."""


PRESETS = {
    "smallest": Config(amounts=replace(SMALLEST, blocks=1)),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Llama-3.1-8B", device="cuda"), PAPER, (0.1, 0.2)),
}


def run(config: Config, progress: Progress) -> Answer:
    """Measure every method at every budget; raises as `prepared` and the methods do."""
    from experiments.parts.standing import DENSE, each

    some("compressions", config.compressions)
    for compression in config.compressions:
        between("compressions", compression, 0, 1)
    within("seed", config.seed, 0, SEEDS)
    work = prepared(config.reading, config.amounts, progress)
    methods = {
        f"{name}, {rho:.0%}": method
        for rho in config.compressions
        for name, method in _methods(rho, config.seed).items()
    }
    found = each(work, methods, work.windows, progress)
    above = {name: str(interval(one.nll - found[DENSE].nll)) for name, one in found.items()}
    rows = [(name, f"{m.kept:.3f}", f"{m.ppl:.4g}", above[name]) for name, m in found.items()]
    table = Table(("model", "of all weights", "perplexity", "nats above dense"), rows,
                  "Paired by window, 95% intervals over them.")  # fmt: skip
    units = {name: one.nll for name, one in found.items()}
    findings = [_finding(name, rho, units) for rho in config.compressions
                for name in (*SVDS, *CONTROLS)]  # fmt: skip
    return Answer(config, work.inputs, findings, [table], units)


def _methods(rho: float, seed: int) -> dict[str, Any]:
    from bridge.methods.a3 import A3
    from bridge.methods.low_rank import MomentLowRank, PlainLowRank, ScaledLowRank

    svd = (PlainLowRank(rho), ScaledLowRank(rho), MomentLowRank(rho))
    controls = (A3(rho, metric="weights"), A3(rho, metric="random", seed=seed))
    return {A3_ITSELF: A3(rho)} | dict(zip(SVDS + CONTROLS, svd + controls, strict=True))


def _finding(name: str, rho: float, units: dict) -> Finding:
    ours, other = units[f"{A3_ITSELF}, {rho:.0%}"], units[f"{name}, {rho:.0%}"]
    return Finding(
        claim=f"a3/table/{'metric' if name in CONTROLS else 'svd'}",
        case=f"{name}, {rho:.0%}",
        effect=interval(other - ours),
        unit="nats a token above A3",
        over="windows",
        claimed=ABOVE_ZERO,
        control=f"A3 above dense: {interval(ours - units['dense'])}",
    )


def sections(result: Answer) -> list[Section]:
    """Claims, perplexities, and the losses as a picture."""
    from experiments.parts.qera.losses import above_dense

    picture = Picture("losses", above_dense(result.units), "95% intervals over windows, paired.")
    return answer.sections(result, "Perplexity at equal budget", [picture])
