"""Which term of sparse plus low rank carries the sinks?

The papers switch OATS' low-rank term off and see the sinks go. What is left then is the residual
of a matrix whose low-rank part was taken out, so that alone says nothing about sparse matrices:
beside it stand a plain sparse matrix with as many nonzeros, and a random low-rank term of equal
rank and norm.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from experiments import effects
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section
from experiments.settings import SEEDS, Budget, Reading, Sizes, within

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from experiments.measure import Effect, Material, Measured
    from mech.load import Loaded


@dataclass(frozen=True)
class Config:
    """Swap the terms of OATS in the attention projections; the rest stays dense."""

    reading: Reading = field(default_factory=Reading)
    budget: Budget = field(default_factory=Budget)
    select: str = "*.self_attn.[qkv]_proj"
    """Which linears are swapped."""
    sizes: Sizes = field(default_factory=Sizes)
    seed: int = 0
    """Of the random low-rank terms."""


@dataclass(frozen=True)
class Result:
    """Effects against the dense model; the first is the dense model itself."""

    config: Config
    inputs: Inputs
    heads: int
    linears: int
    found: "dict[str, Effect]"


DENSE = "dense"
BOTH = "sparse + low rank (OATS)"
SPARSE = "low rank off: OATS' sparse term alone"
LOW = "sparse off: OATS' low-rank term alone"
PLAIN = "control: plain sparse, as many nonzeros"
RANDOM = "control: sparse term + random low rank"


def run(config: Config, progress: Progress) -> Result:
    """Load, calibrate once, measure every variant."""
    from bridge.sites import linears
    from experiments import measure, roster

    roster.oats(config.budget)  # refused before the work
    within("seed", config.seed, 0, SEEDS)
    loaded = measure.loaded_model(config.reading, progress)
    linears(loaded.model, config.select)  # a glob that matches nothing is refused before the work
    material = measure.material(loaded, config.reading, config.sizes, progress)
    dense = measure.measure(loaded.model, material, progress, DENSE)
    return answer(config, loaded, material, dense, progress)


def answer(
    config: Config, loaded: "Loaded", material: "Material", dense: "Measured", progress: Progress
) -> Result:
    """The same for a model that is loaded and measured."""
    from bridge.toggle import swap
    from experiments import measure
    from experiments.variants import calibrated

    found = {DENSE: measure.effect(DENSE, dense, dense)}
    variants = calibrated(config, loaded.model, material, progress)
    for name, operators in variants.items():
        with swap(loaded.model, operators):
            after = measure.measure(loaded.model, material, progress, name)
        found[name] = measure.effect(name, after, dense)
    heads = dense.scores.shape[0] * dense.scores.shape[2]
    return Result(config, material.inputs, heads, len(variants[BOTH]), found)


def sections(result: Result) -> list[Section]:
    """The table, the two pictures, and what may be concluded."""
    every = list(result.found.values())
    changed = every[1:]
    which = f"{result.linears} matrices {result.config.select}, everything else dense"
    return [
        Section(
            "Which term carries the sinks",
            _text(result),
            [effects.table(every, result.heads, result.inputs)],
            [
                effects.sink_bars(changed, "terms-sinks", which),
                effects.forest(changed, "terms-loss", which),
            ],
        )
    ]


CLEAR = 0.2  # a smaller difference of two recalls is not called one


def _text(result: Result) -> list[str]:
    found = result.found
    both, sparse, low, plain, random = (
        found[name].kept.first_recall for name in (BOTH, SPARSE, LOW, PLAIN, RANDOM)
    )
    swapped = (
        "OATS writes a matrix as sparse plus low rank. Here it stands only in "
        f"{result.config.select} at {effects.percent(result.config.budget.sparsity)}, calibrated "
        "once, and one term at a time is switched off."
    )
    if math.isnan(both):
        return [swapped, "The dense model has no first-token sinks that a term could carry."]
    return [
        swapped,
        f"With the low-rank term off, {sparse:.2f} of the first-token sinks remain; with the "
        f"sparse term off, {low:.2f}. {_carrier(sparse, low)}",
        f"A plain sparse matrix with the same number of nonzeros keeps {plain:.2f} of the "
        f"first-token and {effects.share(found[PLAIN].kept.later_recall)} of the later sinks. "
        f"{_sparsity(sparse, plain)}",
        f"A random low-rank term of equal rank and norm beside the sparse one keeps {random:.2f}, "
        f"OATS' own {both:.2f}: {_directions(both, random)}",
    ]


def _carrier(sparse: float, low: float) -> str:
    if low > sparse + CLEAR:
        return "So of OATS' two terms it is the low-rank one that carries them, as the papers say."
    if sparse > low + CLEAR:
        return "So of OATS' two terms it is the sparse one that carries them, unlike in the papers."
    return "So neither of OATS' two terms carries them more than the other."


def _sparsity(sparse: float, plain: float) -> str:
    if plain > sparse + CLEAR:
        return (
            "So “sparse matrices lose the sinks” does not follow: OATS' sparse term loses them "
            "because it is what is left when the low-rank part has been taken out."
        )
    if sparse > plain + CLEAR:
        return "So OATS' sparse term keeps more of them than a plain sparse matrix does."
    if plain < 1 - CLEAR:
        return "So sparsity itself costs the sinks here."
    return "So sparsity costs few of the sinks here, with OATS' sparse term as without."


def _directions(both: float, random: float) -> str:
    if random < both - CLEAR:
        return "it is these directions that matter, not having a low-rank term."
    if random > both + CLEAR:
        return "a random term does better than OATS' own."
    return "the directions of the low-rank term make no clear difference."
