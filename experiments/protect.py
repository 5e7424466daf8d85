"""Does compression that knows the sinks keep more of them, and predict better, at equal budget?

Plain Wanda and OATS beside the same methods calibrated with sink tokens weighing more, and beside
the same with what sinks read kept exactly, paid for out of the budget. Controls: as many random
directions, and the mean of ordinary tokens alone, which knows no sinks. Every pair is compared on
the same windows and sequences of held-out text.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from experiments import effects
from experiments.intervals import Interval, of_few
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.recalls import Recalls, clear, shown
from experiments.report import Section, Table
from experiments.settings import SEEDS, Reading, Sizes, between, some, within

Base = Literal["wanda", "oats"]
Way = Literal["weighted", "protected", "rows", "mean", "sinks", "random"]
PLAIN = "plain"
CONTROLS = ("mean", "random")
"""Ways that know no sinks; the other ways are compared with them, too."""
WAYS: dict[str, str] = {
    PLAIN: "plain",
    "weighted": "sink tokens weigh more",
    "protected": "means of first, later and ordinary tokens kept",
    "rows": "the same, and the rows that write outlier features",
    "sinks": "means of first and later sinks kept",
    "mean": "control: mean of ordinary tokens kept",
    "random": "control: as many random directions kept",
}


@dataclass(frozen=True)
class Config:
    """Compress plainly, sink-aware and by controls; measure all of them on held-out text."""

    reading: Reading = field(default_factory=Reading)
    sparsities: tuple[float, ...] = (0.6, 0.7)
    """Shares of the weights that are removed."""
    bases: tuple[Base, ...] = ("wanda", "oats")
    """The methods that are made to know the sinks."""
    ways: tuple[Way, ...] = ("weighted", "protected", "mean", "random")
    """weighted calibration; protected means (rows: and the rows that write outlier features);
    sinks, mean, random: what is protected instead."""
    factors: tuple[float, ...] = (4.0, 16.0)
    """Weights of a sink token to choose from, on a third of the calibration half."""
    sizes: Sizes = field(default_factory=Sizes)
    seed: int = 0
    """Of random directions."""


class Row(NamedTuple):
    """One compressed model. nll: nats a token more than the dense model. factor: the weight of
    sink tokens. tags: mean cosine of v_s W_O with the dense model's, over its sinks."""

    sparsity: float
    base: str
    way: str
    density: float
    factor: float | None
    ppl: float
    nll: Interval
    kept: Recalls
    tags: Interval | None


class Gain(NamedTuple):
    """A way beside another of the same base and budget, plain or a control: paired."""

    sparsity: float
    base: str
    way: str
    nll: Interval
    later_recall: Interval | None
    later_precision: Interval | None
    tags: Interval | None
    other: str = PLAIN


@dataclass(frozen=True)
class Result:
    """Sinks are told apart on the calibration text: how many tokens are first, later, ordinary."""

    config: Config
    inputs: Inputs
    dense_ppl: float
    tokens: dict[str, int]
    outliers: list[int]
    chosen: dict[str, float]
    rows: list[Row]
    gains: list[Gain]


def run(config: Config, progress: Progress) -> Result:
    """Find the sinks, choose a weight, compress, measure.

    Raises:
        BadOption: an option that cannot be used.
        BadInput: the text or the model cannot be.
    """
    from experiments import measure, protecting

    some("sparsities", config.sparsities)
    some("bases", config.bases)
    if "weighted" in config.ways:
        some("factors", config.factors)
    for sparsity in config.sparsities:
        between("sparsities", sparsity, 0, 1)
    for factor in config.factors:
        between("factors", factor, 0, 1e6)
    within("seed", config.seed, 0, SEEDS)
    if "weighted" in config.ways:
        within("calibration", config.sizes.calibration, 2)  # some calibrate, some choose
    loaded = measure.loaded_model(config.reading, progress)
    material = measure.material(loaded, config.reading, config.sizes, progress)
    return protecting.answer(config, loaded, material, progress)


def sections(result: Result) -> list[Section]:
    """Every model, then every gain."""
    tables = [_table(result), _gains(result)]
    return [Section("Compression that knows the sinks", _text(result), tables)]


def line(row: Row) -> str:
    """A model in a line, while others are still to come."""
    return (
        f"{effects.percent(row.sparsity)} {row.base}, {WAYS[row.way]}: perplexity "
        f"{effects.number(row.ppl)}, later sinks' recall {shown(row.kept.later_recall)}, "
        f"precision {shown(row.kept.later_precision)}, tags {shown(row.tags)}"
    )


def _text(result: Result) -> list[str]:
    tokens = result.tokens
    said = [
        f"Of {sum(tokens.values()):,} calibration tokens {tokens['first tokens']} are first tokens "
        f"and {tokens['later sinks']} later sinks of the dense model, whose perplexity on the "
        f"held-out text is {effects.number(result.dense_ppl)}.",
        *(verdict(gain) for gain in result.gains),
    ]
    if result.outliers and "rows" in result.config.ways:
        said.append(f"Outlier features: {', '.join(map(str, result.outliers))}.")
    return said


def verdict(gain: Gain) -> str:
    """What the intervals of a gain say."""
    better, recall = -clear(gain.nll), clear(gain.later_recall)
    unknown = _unknown(gain)
    both = {
        (1, 1): "better in both",
        (-1, -1): "worse in both",
        (1, 0): "a better prediction, and no clear difference in sinks",
        (0, 1): "more sinks, and no clear difference in prediction",
        (1, -1): "a better prediction for fewer sinks",
        (-1, 1): "more sinks for a worse prediction",
        (-1, 0): "a worse prediction, and no clear difference in sinks",
        (0, -1): "fewer sinks, and no clear difference in prediction",
        (0, 0): "no clear difference in either",
    }
    return (
        f"At {effects.percent(gain.sparsity)}, {gain.base} with {WAYS[gain.way]}, against "
        f"{_other(gain)}: {_signed(gain.nll)} nats a token, later sinks' recall "
        f"{_signed(gain.later_recall)}, precision {_signed(gain.later_precision)}: "
        f"{unknown or both[better, recall]}{_at_a_price(gain)}."
    )


def _unknown(gain: Gain) -> str:
    """What nothing was measured of is no tie."""
    if not math.isfinite(gain.nll.mean):
        return "a loss is no number, so nothing can be said"
    if gain.later_recall is None:
        told = {1: "a better prediction", -1: "a worse prediction", 0: "no clear difference in it"}
        return f"{told[-clear(gain.nll)]}, and no later sinks to compare"
    return ""


def _other(gain: Gain) -> str:
    return f"plain {gain.base}" if gain.other == PLAIN else f"the {WAYS[gain.other]}"


def _at_a_price(gain: Gain) -> str:
    """More of the dense model's sinks may come with more that are none of it."""
    if clear(gain.later_precision) < 0:
        return ", and more sinks that the dense model has not"
    return ""


def _table(result: Result) -> Table:
    rows = [
        (
            effects.percent(row.sparsity),
            row.base,
            WAYS[row.way] + ("" if row.factor is None else f" ({row.factor:g} ×)"),
            f"{row.density:.4f}",
            effects.number(row.ppl),
            f"{row.nll.mean:+.3f} [{row.nll.low:+.3f}, {row.nll.high:+.3f}]",
            shown(row.kept.first_recall),
            shown(row.kept.later_recall),
            shown(row.kept.later_precision),
            shown(row.tags),
        )
        for row in result.rows
    ]
    n = result.rows[0].nll.n
    sequences = result.config.sizes.sequences
    return Table(
        (
            *("removed", "method", "", "density", "perplexity", "Δ nats a token"),
            *("first sinks, recall", "later sinks, recall", "precision", "tags kept"),
        ),
        rows,
        f"All linears, held-out half of {result.inputs.text}; 95% intervals over {n} windows "
        f"(paired with the dense model) and {sequences} sequences. Later sinks are guarded. "
        "Tags kept: mean cosine of v_s W_O with the dense model's, over the dense model's sinks."
        f"{_factors(result)}{of_few(min(n, sequences))}",
    )


def _factors(result: Result) -> str:
    if not result.chosen:
        return ""
    several = ", ".join(f"{factor:g}" for factor in result.config.factors)
    return (
        f" (f ×): a sink token weighs f times as much; f of {several} chosen by the loss on a "
        "third of the calibration windows, calibrated on the others."
    )


def _gains(result: Result) -> Table:
    rows = [
        (
            effects.percent(gain.sparsity),
            gain.base,
            WAYS[gain.way],
            WAYS[gain.other],
            *map(_signed, (gain.nll, gain.later_recall, gain.later_precision, gain.tags)),
        )
        for gain in result.gains
    ]
    return Table(
        (
            *("removed", "method", "", "less", "nats a token", "later sinks, recall"),
            *("precision", "tags kept"),
        ),
        rows,
        "Less the plain method, or a control, at the same budget: paired differences with 95% "
        "intervals. What knows the sinks must gain on the controls, too: they tell whether it is "
        "the sinks that help.",
    )


def _signed(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
