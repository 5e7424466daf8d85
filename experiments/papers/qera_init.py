"""QERA (arXiv:2410.06040), fine-tuning: which low-rank term is the best start of an adapter?

Frozen codes, and a term of equal rank that learns: from QERA, LoftQ, ZeroQuant-V2, or from zero
(as QLoRA). All starts of a seed read the same windows. Held-out loss before training and after.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from experiments.findings import ABOVE_ZERO, Finding
from experiments.intervals import interval, of_few
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.work import DEMO, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Section, Table
from experiments.settings import Reading, between, within

ZERO, LOFTQ, DIAGONAL, EXACT = "rounding", "LoftQ", "QERA-approximate", "QERA-exact"
STARTS = {ZERO: "zero (QLoRA)", LOFTQ: LOFTQ, DIAGONAL: DIAGONAL, EXACT: EXACT}
FEW = Amounts(calibration=12, calibration_seq=192, windows=3, context=256)


@dataclass(frozen=True)
class Config:
    """Quantise, start adapters each way, and train them on calibration windows."""

    reading: Reading = DEMO
    amounts: Amounts = FEW
    bits: int = 3
    """Of an MXINT code, in blocks of 32."""
    rank: int = 8
    """Of the adapters."""
    steps: int = 6
    """Of training, one window each."""
    rate: float = 1e-3
    """Adam's learning rate, the same for every start."""
    seeds: int = 4
    """Runs a start; intervals are over them."""
    select: str = "*"  # glob over the linears that are quantised


PRESETS = {
    "smallest": Config(amounts=replace(SMALLEST, blocks=1), steps=1, seeds=2,
                       select="layers.0.self_attn.[qk]_proj"),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Llama-2-7b-hf", device="cuda"), replace(PAPER, windows=64),
                    rank=64, steps=128, rate=2e-4, seeds=8),
}  # fmt: skip


def run(config: Config, progress: Progress) -> Answer:
    """Every seed, every start; raises as `prepared` and the quantisers do."""
    from experiments.parts.qera import mended, tuning
    from experiments.parts.standing import predicted

    within("steps", config.steps, 1, config.amounts.calibration)
    within("seeds", config.seeds, 2)
    between("rate", config.rate, 0, 1)
    work = prepared(config.reading, config.amounts, progress)
    grid = mended.quantizer("mxint", config.bits, 32)
    starts = mended.mended(work, grid, config.rank, list(STARTS), config.select, progress)
    before, after = {}, {name: [] for name in starts}
    for seed in range(config.seeds):
        order = np.random.default_rng(seed).permutation(len(work.calibration))[: config.steps]
        for name, operators in starts.items():
            with (
                progress.task(f"seed {seed}, {STARTS[name]}", 2 * len(work.windows)) as advance,
                tuning.adapted(work.loaded.model, operators, config.rank, seed) as factors,
            ):
                if name not in before:  # what a zero start adds is zero for every seed
                    before[name] = predicted(work, work.windows, advance).nll
                tuning.tune(work.loaded.model, factors, work.calibration[order], config.rate)
                after[name].append(predicted(work, work.windows, advance).nll.mean())
    tuned = {name: np.array(values) for name, values in after.items()}
    parts = ("before", before), ("after", tuned)
    units = {f"{when}, {n}": v for when, part in parts for n, v in part.items()}
    findings = [*_findings("start", before, "windows"), *_findings("tuned", tuned, "seeds")]
    rows = [(STARTS[n], str(interval(before[n])), str(interval(tuned[n]))) for n in starts]
    caption = "Held-out nats a token: intervals over windows; after training over seeds."
    columns = ("start", "before training", f"after {config.steps} steps")
    table = Table(columns, rows, caption + of_few(config.seeds))
    return Answer(config, work.inputs, findings, [table], units)


def _findings(which: str, losses: dict, over: str) -> Iterator[Finding]:
    for ours in (DIAGONAL, EXACT):
        for other in (ZERO, LOFTQ):
            effect, case = interval(losses[other] - losses[ours]), f"{ours} beside {STARTS[other]}"
            control = f"{STARTS[ZERO]}: {interval(losses[ZERO])} nats"
            yield Finding(
                f"qera/init/{which}", case, effect, "nats a token", over, ABOVE_ZERO, control
            )


def sections(result: Answer) -> list[Section]:
    """Claims, then losses before and after."""
    return answer.sections(result, "Starts of an adapter")
