"""Is the bound proved on a whole box of inputs and parameters? A certificate, and its check."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section, Table
from experiments.settings import BadOption, between, within

if TYPE_CHECKING:  # python-flint is imported when something is to be proved
    from toy.certify.boxes import Statement
    from toy.certify.check import Checked

LONGEST = 128  # tokens
PAUSE = 10.0  # seconds between two words about the progress


@dataclass(frozen=True)
class Config:
    """Prove that |f - m| <= B for every x in [-X, X]^T and every s, b, d of a cell."""

    T: int = 6
    """Tokens."""
    t: int = 3
    """Position of [SEP], from 1."""
    X: float = 1.0
    """The numbers lie in [-X, X]."""
    s: float = 12.0
    """Middle of the cell: the embedding scale s_tag of [SEP]."""
    b: float = 0.3
    """Middle of the cell: weight of a number in the query."""
    d: float = 1.0
    """Middle of the cell: weight of the tag in the query."""
    width: float = 1e-3
    """Length of each side of the cell over its middle; 0 for a single point."""
    b_width: float | None = None
    """Length of b's side itself, for a cell around b = 0."""
    fraction: float = 1.0
    """Prove |f - m| <= fraction * B."""
    boxes: int = 100_000
    """Give up after this many boxes."""
    seconds: float = 600.0
    """Give up after this time."""
    certificate: Path = Path("certificate.json")
    """Where the certificate is written."""
    check: Path | None = None
    """Only check this certificate; nothing is proved, and the other options are not used."""


@dataclass(frozen=True)
class Result:
    """What is proved, how sharply, and at what cost."""

    config: Config
    inputs: Inputs
    certificate: Path
    sha256: str
    statement: dict[str, str]
    """T, t, X, the ends of s, b, d, and fraction, as the certificate has them."""
    leaves: int
    proved: float
    """What |f - m| / B does not exceed, on the worst leaf."""
    reached: float
    """What |f - m| / B exceeds at one point, proved there: the point was searched for."""
    bound: tuple[str, str]
    """B over the cell: its least and its greatest value, rounded outwards."""
    error: str
    """What |f - m| does not exceed, rounded up."""
    prover_seconds: float | None
    checker_seconds: float


def folder(config: Config) -> str:
    """The default folder below out/: a check does not stand in the way of a proof."""
    return "toy-certify" if config.check is None else "toy-certify-check"


def run(config: Config, progress: Progress) -> Result:
    """Prove, write and check; or only check.

    Raises:
        BadOption: a width, fraction or budget that makes no sense.
        Refused: the statement is outside Theorem B, refuted, or not proved within the budget; the
            certificate is rejected; its place is taken by something else.
    """
    from toy.certify.check import check

    if config.check is not None:
        path = config.check
        checked, seconds = _timed(lambda: check(path))
        return _result(config, path, checked, None, seconds)
    from toy.certify.certificate import check_free, stated, text_of, write
    from toy.certify.prove import prove

    statement = _statement(config)
    stated(statement)  # refused now rather than when it is proved
    check_free(config.certificate)
    clock = time.monotonic()
    last = clock
    with progress.task("prove") as advance:

        def tell(leaves: int, left: int) -> None:
            nonlocal last
            if time.monotonic() - last > PAUSE:
                last = time.monotonic()
                advance(f"{leaves} leaves proved, {left} boxes open")

        proof = prove(statement, boxes=config.boxes, seconds=config.seconds, advance=tell)
    proving = time.monotonic() - clock
    text = text_of(proof)
    checked, checking = _timed(lambda: write(config.certificate, text))
    return _result(config, config.certificate, checked, proving, checking)


def _statement(config: Config) -> "Statement":
    from toy.certify.boxes import Statement
    from toy.inputs import check_numbers

    if config.T > LONGEST:
        raise BadOption(
            f"--T {config.T}: give at most {LONGEST}; the search for a counterexample, "
            "which comes first, grows with its fourth power"
        )
    within("width", config.width, 0, 2)
    within("b-width", config.b_width or 0.0, 0)
    between("fraction", config.fraction, 0.0, float("inf"))
    within("boxes", config.boxes, 1)
    between("seconds", config.seconds, 0.0, float("inf"))
    check_numbers(X=config.X, s=config.s, b=config.b, d=config.d)
    check_numbers(**{"b-width": config.b_width or 0.0})
    X, s, b, d, fraction, width = (
        Fraction(str(v))  # the decimal that was typed, not its nearest float
        for v in (config.X, config.s, config.b, config.d, config.fraction, config.width)
    )
    side = width * abs(b) if config.b_width is None else Fraction(str(config.b_width))
    return Statement(
        config.T,
        config.t,
        X,
        (s - width * abs(s) / 2, s + width * abs(s) / 2),
        (b - side / 2, b + side / 2),
        (d - width * abs(d) / 2, d + width * abs(d) / 2),
        fraction,
    )


def _timed(judge: Callable[[], "Checked"]) -> tuple["Checked", float]:
    """What the checker says, and the seconds it took."""
    from toy.certify.check import Rejected
    from toy.errors import Refused

    clock = time.monotonic()
    try:
        return judge(), time.monotonic() - clock
    except Rejected as wrong:
        raise Refused(f"no proof: {wrong}") from wrong


def _result(
    config: Config, path: Path, checked: "Checked", proving: float | None, checking: float
) -> Result:
    from toy.certify import boxes, compare, prove
    from toy.certify.certificate import decimal_text
    from toy.certify.intervals import precision, shown

    found = boxes.Statement(*checked[:7])
    with precision():
        bound = compare.bound(found.T, found.t, found.X, found.box)
        error = bound * checked.ratio
    return Result(
        config,
        Inputs(dtype="interval"),
        path,
        checked.sha256,
        {
            "T": str(found.T),
            "t": str(found.t),
            "X": decimal_text(found.X),
            **{p: " to ".join(map(decimal_text, found.box[p])) for p in boxes.PARAMETERS},
            "fraction": decimal_text(found.fraction),
        },
        checked.leaves,
        float(checked.ratio),
        max(prove.at_least(found, point) for point in prove.suspects(found)),
        (shown(bound.lo, up=False), shown(bound.hi, up=True)),
        shown(error.hi, up=True),
        proving,
        checking,
    )


def sections(result: Result) -> list[Section]:
    """The statement that is proved, and how sharp it is."""
    told = result.statement
    part = "" if told["fraction"] == "1" else f"{told['fraction']} of "
    cell = ", ".join(f"{name} from {told[name]}" for name in "sbd")
    text = [
        f"For every x in [-{told['X']}, {told['X']}]^{told['T']} with [SEP] at t = {told['t']} and "
        f"every {cell}: |f - m| is at most {part}the bound of Theorem B at the same s, b, d.",
        "Proved by intervals on boxes that fill the whole, found with python-flint; checked again "
        f"in decimal arithmetic by a program that shares nothing with the prover: "
        f"python -m toy.certify.check {result.certificate}",
    ]
    rows = [
        ("B, the bound of Theorem B, in the cell", " to ".join(result.bound)),
        ("|f - m| / B, proved to be at most", f"{result.proved:.6g}"),
        ("|f - m| / B, at the worst input found", f"{result.reached:.6g}"),
        ("|f - m|, proved to be at most", result.error),
        ("leaves (boxes of the proof)", f"{result.leaves:,}"),
        *([] if result.prover_seconds is None else [("prover", f"{result.prover_seconds:.2f} s")]),
        ("checker", f"{result.checker_seconds:.2f} s"),
        ("SHA-256 of the content", result.sha256),
    ]
    return [Section("The bound is proved on the whole box", text, [Table(("", ""), rows)])]
