"""R-Sparse, figure 6: is decoding that reads half of the bytes faster, end to end?

The paper: 40 to 43% at 50% on an A6000 in float32, by kernels that read channels only. Here the
low-rank term is computed as well, on this machine's processor; dense and sparse take turns on
every token. Times are the machine's: they are not the same twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from experiments.decoding import speed
from experiments.findings import Finding, Region
from experiments.intervals import Interval
from experiments.parts.answer import Answer
from experiments.parts.page import found
from experiments.parts.work import DEMO
from experiments.progress import Progress
from experiments.report import Section
from experiments.settings import Reading

FASTER, FORTY = Region(low=1.0), Region(low=1.4)


@dataclass(frozen=True)
class Config:
    """Decode the same text dense and sparse, token by token in turn."""

    reading: Reading = DEMO
    sparsity: float = 0.5
    """Share of the bytes of linears and head that a token does not read."""
    alpha: float = 0.95
    """Share of what is read that is channels; the rest is the low-rank term."""
    prompt: int = 64
    """Tokens before the first that is timed; they run dense."""
    tokens: int = 24
    """Tokens that are timed in a window."""
    windows: int = 4
    """Windows."""
    calibration: int = 4
    """Windows that thresholds are taken of."""


PRESETS = {
    "smallest": Config(alpha=1.0, prompt=8, tokens=4, windows=2, calibration=1),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Llama-2-7b-hf"), prompt=128, tokens=128, windows=16),
}


def run(config: Config, progress: Progress) -> Answer:
    """Time every token; raises as `speed.run` does."""
    timing = speed.Config(
        config.reading,
        sparsity=config.sparsity,
        alpha=config.alpha,
        factors="svd",
        dtypes=("float32",),
        quantised=(),
        prompt=config.prompt,
        tokens=config.tokens,
        windows=config.windows,
        calibration=config.calibration,
    )
    result = speed.run(timing, progress)
    tables = [table for section in speed.sections(result) for table in section.tables]
    return Answer(config, result.inputs, list(_findings(config, result)), tables)


def _findings(config: Config, result: speed.Result) -> Iterator[Finding]:
    dense, sparse = (
        next(r for r in result.rows if r.way == way) for way in (speed.DENSE, "sparse")
    )

    def finding(which: str, effect: Interval, than: str, claimed: Region) -> Finding:
        return Finding(
            claim=f"r-sparse/figure-6/{which}",
            case=f"float32, {config.sparsity:.0%}, {config.alpha:.0%} channels, one sequence",
            effect=effect,
            unit=f"times as fast as {than} (median of pairs)",
            over="tokens",
            claimed=claimed,
            control=f"{dense.milliseconds:.1f} ms dense, {sparse.milliseconds:.1f} ms sparse, "
            f"which costs {sparse.nll} nats a token; {result.inputs.threads} thread(s)",
        )

    yield finding("faster", sparse.over_fastest, "the fastest dense form", FASTER)
    yield finding("forty", sparse.over_dense, "F.linear", FORTY)


def sections(result: Answer) -> list[Section]:
    """Claims, then every way that was timed."""
    return [found(result.findings), Section("Every way", [], result.tables)]
