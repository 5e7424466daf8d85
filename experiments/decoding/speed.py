"""Is decoding that reads less faster, end to end? Dense and sparse take turns in one loop."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from experiments.intervals import Interval, of_few
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section, Table
from experiments.settings import BadOption, Reading, between, some, within

Pack = Literal["weights", "int8", "int4"]
DTYPES = ("float32", "bfloat16")
DENSE, FASTEST = "dense", "dense, fastest form"
QUANTISED = {"int8": "dense, torch's int8", "int4": "dense, torch's int4"}


@dataclass(frozen=True)
class Config:
    """Decode the same text dense and sparse, token by token in turn; time and score every token."""

    reading: Reading = field(default_factory=Reading)
    recipe: Path | None = None
    """Folder of a recipe (ctr sparsify). Default: uniform, fitted here."""
    sparsity: float = 0.5
    """Share of the linears' bytes that is not read, where no recipe is given."""
    alpha: float = 0.95
    """Share of what is read that is channels; the rest is the low-rank term."""
    factors: Literal["svd", "moment"] = "moment"
    """How the low-rank term is fitted."""
    head: bool = True
    """Gate the output head, too."""
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = DTYPES
    """Formats of the weights."""
    rows: tuple[Pack, ...] = ("weights",)
    """What sparse linears read: the weights, or int8 or int4 rows made of them."""
    quantised: tuple[Literal["int8", "int4"], ...] = ("int8", "int4")
    """torch's own weight-only products that are timed beside (rounded to nearest)."""
    prompt: int = 64
    """Tokens before the first that is timed; they run dense."""
    tokens: int = 48
    """Tokens that are timed in a window."""
    windows: int = 6
    """Windows; intervals of losses are over them."""
    calibration: int = 8
    """Windows that thresholds are taken from."""


class Row(NamedTuple):
    """A way in a format. over: medians of paired ratios, the others' seconds over this way's;
    quantised: the faster of torch's own dense products of codes.

    linears: the same of the time inside linears. outside: share of a token outside linears.
    nll: nats a token over the dense loop's, the same tokens.
    """

    dtype: str
    way: str
    milliseconds: float
    over_dense: Interval
    over_fastest: Interval
    over_quantised: Interval | None
    linears: Interval
    outside: float
    ppl: float
    nll: Interval
    read: float


@dataclass(frozen=True)
class Result:
    """Rows, the fastest dense forms by shape, and what one thread or several read from memory."""

    config: Config
    inputs: Inputs
    rows: list[Row]
    forms: dict[str, dict[str, str]]
    bandwidth: float


def run(config: Config, progress: Progress) -> Result:
    """Per format: bind every way, then let them take turns on each token.

    Raises:
        BadOption: an option that cannot be used, or no compiled products.
        BadInput: the model is not Llama-shaped, or the recipe is another model's.
    """
    check(config)
    try:
        from experiments.decoding import speed_run
    except ImportError as error:  # a numba that is missing, or broken
        raise BadOption(f"compiled products cannot be loaded, nothing to time: {error}") from error

    return speed_run.answer(config, progress)


def check(config: Config) -> None:
    """Refuse what times nothing.

    Raises:
        BadOption: one of the options.
    """
    some("dtypes", config.dtypes)
    some("rows", config.rows)
    if config.reading.device != "cpu" or config.reading.on_disk:
        raise BadOption("--device and --on-disk: this loop runs on a CPU, in memory")
    between("sparsity", config.sparsity, 0, 1)
    within("alpha", config.alpha, 0, 1)
    within("prompt", config.prompt, 1)
    within("tokens", config.tokens, 4)
    within("windows", config.windows, 2)
    within("calibration", config.calibration, 1)


def sections(result: Result) -> list[Section]:
    """What it came to, in a sentence a format and a table."""
    text = [_verdict(row) for row in result.rows if not row.way.startswith(DENSE)]
    text.append(
        f"Sums of a buffer that no cache holds read {result.bandwidth / 1e9:.1f} GB/s here, on "
        f"{result.inputs.threads} thread(s)."
    )
    for dtype, forms in result.forms.items():
        told = ", ".join(f"{shape} {form}" for shape, form in forms.items())
        text.append(f"The fastest dense forms in {dtype}: {told}.")
    return [Section("Decoding that reads less", text, [_table(result)])]


def _verdict(row: Row) -> str:
    fast = row.over_fastest
    word = "faster than" if fast.low > 1 else "slower than" if fast.high < 1 else "no faster than"
    quantised = ""
    if row.over_quantised is not None:
        quantised = f", {_times(row.over_quantised)} over torch's dense codes"
    return (
        f"{row.dtype}, {row.way}: {word} the fastest dense form in the same loop, {_times(fast)} "
        f"end to end ({_times(row.over_dense)} over F.linear, {_times(row.linears)} in the linears "
        f"alone{quantised}), {100 * row.outside:.0f}% of a token outside linears, at "
        f"{row.nll.mean:+.3f} [{row.nll.low:+.3f}, {row.nll.high:+.3f}] nats a token."
    )


def _table(result: Result) -> Table:
    rows = [
        (
            row.dtype,
            row.way,
            f"{row.milliseconds:.2f}",
            _times(row.over_dense),
            _times(row.over_fastest),
            "–" if row.over_quantised is None else _times(row.over_quantised),
            _times(row.linears),
            f"{100 * row.outside:.0f}%",
            f"{row.read / 1e6:.0f} MB",
            f"{row.read / row.milliseconds / 1e6:.1f} GB/s",
            "–" if math.isnan(row.ppl) else f"{row.ppl:.4g}",
            f"{row.nll.mean:+.3f} [{row.nll.low:+.3f}, {row.nll.high:+.3f}]",
        )
        for row in result.rows
    ]
    pairs = result.rows[0].over_dense.n
    return Table(
        (
            *("weights", "way", "ms a token", "over dense", "over fastest dense"),
            *(
                "over torch's codes",
                "linears alone",
                "outside linears",
                "reads",
                "reads at",
                "perplexity",
            ),
            "Δ nats a token",
        ),
        rows,
        f"One sequence, every way in turn on each of {pairs} tokens, in random order; medians of "
        "paired ratios with 95% bootstrap intervals. Linears alone, outside linears: of other "
        "tokens, which run by parts with a clock around each linear; tokens of sparse ways whose "
        "whole time is given run in one compiled call, so that parts do not add up to it. "
        "Perplexity and its paired difference from the dense loop are of exactly the "
        f"tokens timed, n = {result.config.windows} windows after dense prompts of "
        f"{result.config.prompt} tokens of {result.inputs.text}."
        f"{of_few(result.config.windows)}",
    )


def _times(interval: Interval) -> str:
    return f"{interval.mean:.2f}x [{interval.low:.2f}, {interval.high:.2f}]"
