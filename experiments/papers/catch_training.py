"""Catch, tag, release, version 2, figure 7: does training on the averaging task find it?

The two-layer transformer of the theorem, trained from many draws. Found means less than 10% of the
target's variance unexplained and more than 0.9 of the attention after [SEP] on [SEP]. The paper
found it in 4 of 10 runs at best, whose own 95% interval is 0.17 to 0.69 (Wilson).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from experiments.findings import ABOVE_ZERO, Finding, Region
from experiments.intervals import Interval
from experiments.parts import answer
from experiments.parts.answer import Answer
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Picture, Section, Table
from experiments.settings import SEEDS, multiple, some, within
from experiments.toy_train import CHECKPOINTS

FOUR_OF_TEN = Region(0.17, 0.69)
Start = Literal["default-init", "diagonal", "guided"]


@dataclass(frozen=True)
class Config:
    """Train every seed from each start."""

    starts: tuple[Start, ...] = ("default-init", "diagonal", "guided")
    """Plain Gaussian weights; weights near the theorem's; plain ones with a warm-up."""
    data: Literal["gaussian", "uniform", "laplace"] = "gaussian"
    """Distribution of the numbers to average."""
    seeds: int = 64
    """Initialisations from each start; intervals are over them."""
    steps: int = 2000
    """Minibatches; a multiple of 40."""
    seed: int = 0
    """What all randomness is derived from."""


PRESETS = {
    "smallest": Config(("diagonal",), seeds=8, steps=80),
    "laptop": Config(),
    "paper": Config(seeds=1024, steps=4000),
}


def run(config: Config, progress: Progress) -> Answer:
    """Train and diagnose; raises BadOption for sizes that train nothing."""
    from toy.diagnose import diagnose
    from toy.recipe import PRESETS as RECIPES
    from toy.train import train

    some("starts", config.starts)
    within("seeds", config.seeds, 2, 10_000)
    within("seed", config.seed, 0, SEEDS)
    multiple("steps", config.steps, CHECKPOINTS)
    units, rows, curves = {}, [], {}
    for start in config.starts:
        changed = replace(RECIPES[start], seeds=config.seeds, steps=config.steps)
        recipe = replace(changed, data=config.data, seed=config.seed)
        with progress.task(start, recipe.checkpoints) as advance:
            trained = train(recipe, advance=lambda step: advance(f"step {step}"))
        seen, curves[start] = diagnose(trained, sequences=2048), trained.history.s_tag
        units |= {start: seen.found.astype(float), f"{start}: sink": seen.sink}
        ratio = np.median(seen.ratio_QK[seen.found]) if seen.found.any() else np.nan
        middle = (f"{np.nanmedian(v):.3g}" for v in (seen.fvu, seen.sink))
        rows.append((start, str(share(seen.found)), *middle, f"{ratio:.3g}"))
    columns = ("start", "found", "variance unexplained", "on [SEP]", "σ₂/σ₁ of W_QK, found")
    caption = f"{config.seeds} seeds a start, {config.steps} steps; medians; Wilson's intervals."
    tables, inputs = [Table(columns, rows, caption)], Inputs(dtype="float32")
    return Answer(config, inputs, [*_findings(config, units)], tables, units, {"s_tag": curves})


def share(found: np.ndarray) -> Interval:
    """Of the seeds, with Wilson's 95% interval: a bootstrap of no success has no width."""
    from experiments.larger_sections import wilson

    low, high = wilson(int(found.sum()), len(found))
    return Interval(float(found.mean()), low, high, len(found))


def _findings(config: Config, units: dict) -> Iterator[Finding]:
    for which, claimed in (("found", ABOVE_ZERO), ("at-best", FOUR_OF_TEN)):
        for start in config.starts:
            key, effect = f"catch/v2-figure-7/{which}", share(units[start])
            control, unit = "the paper: 4 of 10 at best", "share of the seeds"
            yield Finding(key, start, effect, unit, "seeds", claimed, control)


def sections(result: Answer) -> list[Section]:
    """Claims, the table, and the tag of every seed by step."""
    from experiments.parts.drawn import tags_by_step

    drawn = tags_by_step(result.config.steps, result.data["s_tag"], result.units)
    caption = "s_tag of every seed; blue: the mechanism was found."
    return answer.sections(result, "Does training find it?", [Picture("training", drawn, caption)])
