"""Which term of sparse plus low rank carries the sinks?

The papers switch OATS' low-rank term off and see the sinks go. What is left then is the residual
of a matrix whose low-rank part was taken out, so that alone says nothing about sparse matrices:
beside it stand a plain sparse matrix with as many nonzeros, and a random low-rank term of equal
rank and norm.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from experiments import effects
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section
from experiments.settings import Reading, Sizes

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from experiments.measure import Effect, Material, Measured
    from mech.load import Loaded


@dataclass(frozen=True)
class Config:
    """Swap the terms of OATS in the attention projections; the rest stays dense."""

    reading: Reading = field(default_factory=Reading)
    sparsity: float = 0.5
    """Share of the weights that OATS removes."""
    rank_ratio: float = 0.25
    """Share of the kept parameters in the low-rank term."""
    iterations: int = 80
    """Alternations of the definition, whose error the fast loop reaches."""
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
    from experiments import measure, roster

    roster.build("oats", config.sparsity, rank_ratio=config.rank_ratio)
    loaded = measure.loaded_model(config.reading, progress)
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


def _text(result: Result) -> list[str]:
    found = result.found
    sparse, low, plain, random = (found[name].kept for name in (SPARSE, LOW, PLAIN, RANDOM))
    return [
        "OATS writes a matrix as sparse plus low rank. Here it stands only in "
        f"{result.config.select} at {result.config.sparsity:.0%}, calibrated once, and one term "
        "at a time is switched off.",
        f"With the low-rank term off, {sparse.first_recall:.2f} of the first-token sinks remain; "
        f"with the sparse term off, {low.first_recall:.2f}. "
        + (
            "So of OATS' two terms it is the low-rank one that carries them, as the papers say."
            if low.first_recall > sparse.first_recall + 0.2
            else "The low-rank term does not carry them alone."
        ),
        f"But a plain sparse matrix with the same number of nonzeros keeps "
        f"{plain.first_recall:.2f} of the first-token and {plain.later_recall:.2f} of the later "
        "sinks. "
        + (
            "So “sparse matrices lose the sinks” does not follow: OATS' sparse term loses them "
            "because it is what is left when the low-rank part has been taken out."
            if plain.first_recall > sparse.first_recall + 0.2
            else "So sparsity itself costs the sinks here."
        ),
        f"A random low-rank term of equal rank and norm beside the sparse one keeps "
        f"{random.first_recall:.2f}: "
        + (
            "it is these directions that matter, not having a low-rank term."
            if random.first_recall < found[BOTH].kept.first_recall - 0.2
            else "any low-rank term of that norm does as well."
        ),
    ]
