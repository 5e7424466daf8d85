"""Which term of sparse plus low rank carries the sinks, and is it that term or the amount?

The papers switch OATS' low-rank term off and see the sinks go. What is left then is the residual
of a matrix whose low-rank part was taken out, so that alone says nothing about sparse matrices.
Beside it stand matched controls: a plain sparse matrix with as many nonzeros, and one from which
as much was removed; random low-rank terms of equal norm or of equal spectrum; the top component
of the dense matrix gone, and a random one; and plain sparse matrices of falling density.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from experiments import effects, naming
from experiments.intervals import Interval
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.recalls import Ratios, Recalls
from experiments.report import Section
from experiments.settings import SEEDS, Budget, Reading, Sizes, between, some, within
from experiments.where import Where

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from experiments.measure import Effect, Material, Measured
    from experiments.variants import Variant
    from mech.load import Loaded

Question = Literal["terms", "directions", "amount"]


@dataclass(frozen=True)
class Config:
    """Swap the terms of OATS in the attention projections; the rest stays dense."""

    reading: Reading = field(default_factory=Reading)
    budget: Budget = field(default_factory=Budget)
    where: Where = field(default_factory=Where)
    questions: tuple[Question, ...] = ("terms", "directions", "amount")
    """terms: which one carries the sinks. directions: is it the top component. amount: is it how
    much was removed."""
    densities: tuple[float, ...] = (0.3, 0.2, 0.1, 0.05)
    """Of plain sparse matrices, for the amount."""
    sizes: Sizes = field(default_factory=Sizes)
    seed: int = 0
    """Of the random terms, permutations and projections."""


class Contrast(NamedTuple):
    """What `b` has more than `a`: recall of first and of later sinks, loss; paired."""

    a: str
    b: str
    first: Interval | None
    later: Interval | None
    nll: Interval


@dataclass(frozen=True)
class Result:
    """Against the dense model, which is the first. removed: the mean over the matrices of
    ‖(W - Ŵ)D‖² / ‖WD‖²."""

    config: Config
    inputs: Inputs
    heads: int
    linears: int
    found: "dict[str, Effect]"
    recalls: dict[str, Recalls]
    removed: dict[str, float]
    contrasts: list[Contrast]


# What is told apart: (a, b) asks what b keeps more than a.
PAIRS = (
    (naming.SPARSE, naming.LOW),
    (naming.SPARSE, naming.PLAIN),
    (naming.SPARSE, naming.AS_FAR),
    (naming.RANDOM, naming.BOTH),
    (naming.OUTPUTS, naming.BOTH),
    (naming.INPUTS, naming.BOTH),
    (naming.TOP, naming.PROJECTION),
    (naming.TOP, naming.NORM),
)


def run(config: Config, progress: Progress) -> Result:
    """Load, calibrate once, measure every variant."""
    from experiments import measure, roster

    roster.oats(config.budget)  # refused before the work
    some("questions", config.questions)
    within("seed", config.seed, 0, SEEDS)
    for density in config.densities:
        between("densities", density, 0, 1)
    loaded = measure.loaded_model(config.reading, progress)
    config.where.names(loaded.model)  # a choice that matches nothing is refused before the work
    material = measure.material(loaded, config.reading, config.sizes, progress)
    dense = measure.measure(loaded.model, material, progress, naming.DENSE)
    return answer(config, loaded, material, dense, progress)


def answer(
    config: Config, loaded: "Loaded", material: "Material", dense: "Measured", progress: Progress
) -> Result:
    """The same for a model that is loaded and measured."""
    from bridge.toggle import swap
    from experiments import measure, recalls, roster, variants
    from mech.probes import sinks

    oats = roster.oats(config.budget)
    matrices = variants.calibrated(loaded.model, oats, config.where, material, progress)
    reference = sinks.sinks(dense.scores, measure.EPSILON)
    found = {naming.DENSE: measure.effect(naming.DENSE, dense, dense)}
    counts = {naming.DENSE: recalls.ratios(reference, reference)}
    nll, removed = {naming.DENSE: dense.nll}, {naming.DENSE: 0.0}
    for name, variant in _asked(config).items():
        operators, removed[name] = variants.operators(matrices, variant, config.seed)
        with swap(loaded.model, operators):
            after = measure.measure(loaded.model, material, progress, name)
        found[name] = measure.effect(name, after, dense)
        counts[name] = recalls.ratios(sinks.sinks(after.scores, measure.EPSILON), reference)
        nll[name] = after.nll
    return Result(
        config=config,
        inputs=material.inputs,
        heads=dense.scores.shape[0] * dense.scores.shape[2],
        linears=len(matrices),
        found=found,
        recalls={name: recalls.recalls(count) for name, count in counts.items()},
        removed=removed,
        contrasts=[_contrast(a, b, counts, nll) for a, b in PAIRS if {a, b} <= set(counts)],
    )


def _asked(config: Config) -> "dict[str, Variant]":
    from experiments import variants

    asked = dict(variants.TERMS) if "terms" in config.questions else {}
    if "directions" in config.questions:
        asked |= variants.DIRECTIONS
    if "amount" in config.questions:
        # Beside OATS' sparse term, whatever else was asked.
        asked |= {naming.SPARSE: variants.TERMS[naming.SPARSE]} | variants.AS_FAR
        for density in config.densities:
            asked |= variants.at_density(density)
    return asked


def _contrast(a: str, b: str, counts: dict[str, Ratios], nll: dict) -> Contrast:
    from experiments.intervals import interval
    from experiments.recalls import difference

    return Contrast(
        a,
        b,
        difference(counts[a].first_recall, counts[b].first_recall),
        difference(counts[a].later_recall, counts[b].later_recall),
        interval(nll[b] - nll[a]),
    )


def sections(result: Result) -> list[Section]:
    """The tables, the two pictures, and what may be concluded."""
    from experiments import terms_words

    changed = list(result.found.values())[1:]
    which = f"{result.linears} matrices {result.config.where}, everything else dense"
    return [
        Section(
            "Which term carries the sinks",
            terms_words.text(result),
            [terms_words.table(result), terms_words.contrasts(result)],
            [
                effects.sink_bars(changed, "terms-sinks", which),
                effects.forest(changed, "terms-loss", which),
            ],
        )
    ]
