"""R-Sparse, figure 2: do a few constants stand for the inputs that a threshold leaves out?

The multi-phase ReLU gives inputs below a threshold one of l constants; l = 2 is said to win back
what 90% sparsity costs: 2 in all, or of each sign. Controls: constants by chance; one fixed bias.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from experiments.findings import Finding, Region
from experiments.intervals import interval
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.parts.r_sparse import filled_page
from experiments.parts.work import DEMO, PAPER, SMALLEST, Amounts, prepared
from experiments.progress import Progress
from experiments.report import Section
from experiments.settings import Reading, between, some, within

SHORT = Amounts(calibration=8, context=192)
MOST = Region(low=0.5)
CLAIMED = 2
UNIT = "of the loss that leaving out costs, won back"
ASKED = {
    "one bias": ("bias", ""),
    "2 by size": ("recovers", ", 2 in all"),
    "4 by size": ("recovers", ", 2 of each sign"),
}


@dataclass(frozen=True)
class Config:
    """Score the same windows with something in place of what thresholds leave out."""

    reading: Reading = DEMO
    amounts: Amounts = SHORT
    sparsities: tuple[float, ...] = (0.5, 0.9)
    """Shares of the inputs that are left out of every linear, thresholds of the dense model."""
    constants: tuple[int, ...] = (1, 2, 4)
    """Phases, equally many inputs in each."""
    keep: int = 512
    """Calibration tokens of which thresholds and constants are taken."""
    seed: int = 0
    """Of the tokens kept, and of constants given by chance."""


PRESETS = {
    "smallest": Config(amounts=SMALLEST, sparsities=(0.5,), constants=(2,), keep=64),
    "laptop": Config(),
    "paper": Config(Reading("meta-llama/Llama-2-7b-hf", device="cuda"), PAPER, keep=2048),
}


def run(config: Config, progress: Progress) -> Answer:
    """Calibrate, then score every variant; raises as `prepared` does."""
    from bridge.decode.inputs import calibrate
    from experiments import measure
    from experiments.parts.r_sparse import filled

    some("sparsities", config.sparsities)
    some("constants", config.constants)
    for sparsity in config.sparsities:
        between("sparsities", sparsity, 0, 1)
    within("constants", min(config.constants), 1)
    work = prepared(config.reading, config.amounts, progress)
    model, batches = work.loaded.model, work.calibration.split(measure.AT_ONCE)
    inputs = calibrate(model, batches, keep=config.keep, seed=config.seed)
    ways = filled.ways(config.constants, CLAIMED, config.seed)

    def losses(name: str) -> np.ndarray:
        with progress.task(name, len(work.windows)) as advance:
            return measure.window_losses(model, work.windows, work.bos_id, advance)

    units = {"dense": losses("dense")}
    for sparsity in config.sparsities:
        for way, make in ways.items():
            name = f"{sparsity:.0%}, {way}"
            with filled.filled(model, filled.fills(inputs, make, sparsity)):
                units[name] = losses(name)
    return Answer(config, work.inputs, list(_findings(units)), [filled_page.table(units)], units)


def _findings(units: Mapping[str, np.ndarray]) -> Iterator[Finding]:
    shares = filled_page.won_back(units)
    for (sparsity, way), won in shares.items():
        if way in ASKED:
            which, words = ASKED[way]
            chance = interval(shares[sparsity, f"{CLAIMED} by chance"])
            control = f"{CLAIMED} constants given by chance: {chance}"
            key, case = f"r-sparse/figure-2/{which}", f"{sparsity} left out{words}"
            yield Finding(key, case, interval(won), UNIT, "windows", MOST, control)


def sections(result: Answer) -> list[Section]:
    """Claims, then what every stand-in wins back."""
    return answer.sections(result, "In its place", [filled_page.picture(result.units)])
