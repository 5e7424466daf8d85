"""Where does a float say "exact" while the true error is large? Three formats against the truth."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from experiments import pictures
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Picture, Section, Table
from experiments.settings import SEEDS, between, within

if TYPE_CHECKING:  # jax is imported when the question is asked, not for --help
    from toy.audit import Audit, Format, Softmax, Truth


@dataclass(frozen=True)
class Config:
    """Hold float32, bfloat16 and float64 against the exact error of the averaging transformer."""

    T: int = 16
    """Tokens."""
    t: int = 6
    """Position of [SEP], from 1."""
    X: float = 2.0
    """Bound on the numbers."""
    d: float = 1e6
    """The large weight d, beside d = 1; rounded to 8 bits, as everything here."""
    cases: int = 64
    """Random inputs; two more are all X, and X before [SEP] and -X after it."""
    seed: int = 0
    """What all randomness is derived from."""


class Row(NamedTuple):
    """One format and softmax at one d: what was predicted, and what the scales show."""

    audit: "Audit"
    saturation: float  # tags predicted identical from here on
    overflow: float  # NaN predicted from here on
    identical: float
    lost: float
    flat: float
    blind: float
    worst: float  # the largest true over reported error
    at: float  # and its scale


@dataclass(frozen=True)
class Result:
    """Every format, softmax and d."""

    config: Config
    inputs: Inputs
    rows: list[Row]


def run(config: Config, progress: Progress) -> Result:
    """The truth at each scale, then each float beside it.

    Raises:
        BadOption: a size that makes no sequence.
        Refused: numbers that the theorem does not cover.
    """
    import numpy as np

    from toy.audit import FORMATS, SOFTMAXES, rounded, truth

    within("cases", config.cases, 1, 10_000)
    within("T", config.T, 2, 512)
    within("t", config.t, 1, config.T - 1)
    between("X", config.X, 0, 100)
    between("d", config.d, 0, 1e30)
    within("seed", config.seed, 0, SEEDS)
    before = np.arange(config.T) < config.t
    random = np.random.default_rng(config.seed).uniform(-1, 1, (config.cases, config.T))
    corners = np.stack([np.ones(config.T), np.where(before, 1.0, -1.0)])
    x = rounded(config.X * np.concatenate([random, corners]))
    scales = np.arange(1.5, 60.25, 0.25)
    rows = []
    with progress.task("audit", 4 * len(FORMATS)) as advance:
        for d in (1.0, float(rounded(config.d))):
            exact = truth(x, config.t, scales, d)
            for softmax in SOFTMAXES:
                for format in FORMATS:
                    rows.append(_row(exact, format, softmax))
                    advance(f"{softmax} {format}, d = {d:g}")
    return Result(config, Inputs(device="cpu"), rows)


def _row(exact: "Truth", format: "Format", softmax: "Softmax") -> Row:
    import numpy as np

    from toy.audit import audit, overflow_scale, saturation_scale

    seen = audit(exact, format, softmax)
    ratio = np.where(np.isnan(seen.dishonesty), 0.0, seen.dishonesty)
    at = int(ratio.argmax())
    X = float(np.abs(exact.x).max())
    return Row(
        audit=seen,
        saturation=saturation_scale(exact.x.shape[1], X, format, softmax),
        overflow=overflow_scale(exact.x, exact.t, exact.d, format, softmax),
        identical=seen.identical_from,
        lost=seen.lost_from,
        flat=seen.flat_from,
        blind=seen.blind_from,
        worst=float(ratio[at]),
        at=float(seen.s_tag[at]),
    )


def sections(result: Result) -> list[Section]:
    """The table of predictions and measurements, and what each format reports."""
    config = result.config
    shifted = [row for row in result.rows if row.audit.softmax == "shifted"]
    text = [
        "Once 1 - A1[i, t] is below a format's unit roundoff, every tag after [SEP] is the same "
        "number: the second layer averages evenly, and the model reports an error of rounding. "
        "The exact model is still as uneven as d makes it.",
        "Worst: " + "; ".join(_dishonest(row) for row in shifted if row.audit.d != 1) + ".",
        "A softmax that does not subtract its maximum answers NaN as soon as exp(s²), [SEP]'s "
        "score with itself, or the exponential of a score of layer 2 overflows.",
    ]
    table = Table(
        (
            "d", "softmax", "format", "tags identical from", "predicted at most",
            "NaN from", "predicted", "df/ds wrong from", "df/ds = 0 from",
            "true / reported at most", "at s",
        ),
        [_cells(row) for row in result.rows],
        f"T = {config.T}, t = {config.t}, |x| ≤ {config.X:g}, {config.cases + 2} inputs, s in "
        "steps of 0.25 up to 60; largest error over the inputs. A report below one rounding of "
        "the mean counts as that. “–”: not up to s = 60.",
    )  # fmt: skip
    shown = []
    for d in dict.fromkeys(row.audit.d for row in shifted):
        kept = [row.audit for row in shifted if row.audit.d == d]
        curves = {"true error (closed form)": kept[0].true}
        curves |= {f"{seen.format} transformer": seen.reported for seen in kept[::-1]}
        shown.append(
            Picture(
                f"audit-d{d:g}",
                pictures.bound_against_error(kept[0].s_tag, curves, f"d = {d:g}"),
                "The largest error over the inputs, exactly and as each format reports it with a "
                "softmax that subtracts its maximum. A reported error of 0 cannot be shown.",
            )
        )
    return [Section("Where floats say exact and are not", text, [table], shown)]


def _dishonest(row: Row) -> str:
    seen = row.audit
    at = list(seen.s_tag).index(row.at)
    return (
        f"{seen.format} at s = {row.at:g}, d = {seen.d:g} reports {seen.reported[at]:.1e} where "
        f"the error is {seen.true[at]:.2g}"
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        f"{row.audit.d:g}",
        row.audit.softmax,
        row.audit.format,
        _scale(row.identical),
        "–" if math.isnan(row.saturation) else f"{row.saturation:.2f}",
        _scale(row.lost),
        f"{row.overflow:.4g}",
        _scale(row.blind),
        _scale(row.flat),
        f"{row.worst:.3g}" if row.worst else "–",
        f"{row.at:g}" if row.worst else "–",
    )


def _scale(s: float) -> str:
    return "–" if math.isnan(s) else f"{s:g}"
