"""What does activation sparsity do to sinks, and does a gate that knows them predict better?

R-Sparse and TEAL at 40 to 70%, beside controls that read as much: random channels, the exact
largest of every token, an error of the same size in a random direction. Then ways of knowing the
sinks, each fitted to read the same bytes, beside the plain one and beside a control of its own.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from experiments import saving
from experiments.intervals import Interval
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section
from experiments.settings import BadOption, Reading, between, some, within

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from experiments.recalls import Recalls

Method = Literal["teal", "rsparse", "rsparse-moment"]
Way = Literal[
    "first", "sinks", "tokens", "floor", "always", "always-random", "makers", "shuffled", "top",
    "random", "noise",
]  # fmt: skip
PLAIN = "plain"
WAYS: dict[str, str] = {
    PLAIN: "plain",
    "first": "first token dense",
    "sinks": "first and later sinks dense",
    "tokens": "control: as many ordinary tokens dense",
    "floor": "starved tokens read their largest",
    "always": "massive dimensions always read",
    "always-random": "control: as many random dimensions",
    "makers": "more for linears that make sinks",
    "shuffled": "control: the same, blocks shuffled",
    "top": "control: exactly the largest of every token",
    "random": "control: random channels",
    "noise": "control: noise of the error's size",
}
CONTROL_OF = {"sinks": "tokens", "always": "always-random", "makers": "shuffled"}


@dataclass(frozen=True)
class Amounts:
    """How much text: more gives narrower intervals and takes longer."""

    calibration: int = 8
    """Calibration sequences."""
    windows: int = 24
    """Held-out sequences: losses, sinks, tags and massive activations are read on the same."""
    context: int = 256
    """Tokens of a sequence, at least 64."""
    rounds: int = 2
    """Times that thresholds are corrected for what gates upstream change of their inputs."""


@dataclass(frozen=True)
class Config:
    """Gate every linear, measure losses and sinks, compare at equal bytes."""

    reading: Reading = field(default_factory=Reading)
    sparsities: tuple[float, ...] = (0.4, 0.5, 0.6, 0.7)
    """Shares of the bytes of all linears that are not read."""
    methods: tuple[Method, ...] = ("teal", "rsparse")
    """teal: |x| above a threshold. rsparse: |x| times the column's norm, 5% of what is read for
    a low-rank term (plain SVD; rsparse-moment: least output error)."""
    ways: tuple[Way, ...] = (
        "first", "sinks", "tokens", "floor", "always", "always-random", "makers", "shuffled",
        "top", "random", "noise",
    )  # fmt: skip
    """Ways of spending the same bytes, for the first of the methods; the others are plain."""
    sparse_from: tuple[float, ...] = (0.0, 0.5)
    """Share of each sequence's leading tokens that stay dense, as a prompt does in decoding."""
    spread: float = 0.08
    """makers: the density of linears that make sinks most is twice this above the least."""
    amounts: Amounts = field(default_factory=Amounts)
    state: Path = Path("out") / "sparse-sinks"
    """Folder in which every variant is kept once it is measured: a run goes on from there. The
    code is not part of what it is kept by: take another folder when it has changed."""


class Variant(NamedTuple):
    """A method at a sparsity, its way of spending, and where sparse tokens begin."""

    sparse_from: float
    sparsity: float
    method: str
    way: str = PLAIN


class Row(NamedTuple):
    """One variant beside the dense model.

    nll: nats a sparsified token more. read: bytes of sparsified tokens over dense. kinds: the
    same of ordinary tokens, first tokens, later sinks. massive: recall and precision of massive
    activations; sizes: mean h' / h of them.
    """

    variant: Variant
    ppl: float
    nll: Interval
    read: float
    kinds: tuple[float | None, ...]
    kept: "Recalls"
    tags: Interval | None
    massive: tuple[Interval | None, Interval | None]
    sizes: Interval | None


class Gain(NamedTuple):
    """A variant less another of the same bytes: paired. read: bytes of the one over the other's."""

    variant: Variant
    other: str
    nll: Interval
    first_recall: Interval | None
    later_recall: Interval | None
    tags: Interval | None
    read: float


class Shift(NamedTuple):
    """By kind of linear: thresholds from ordinary tokens over those from all, mean, least, most."""

    sparsity: float
    role: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """tokens: how many of the held-out text are ordinary, first, later sinks."""

    config: Config
    inputs: Inputs
    dense_ppl: dict[str, float]
    tokens: dict[str, int]
    massive: list[int]
    shifts: list[Shift]
    rows: list[Row]
    gains: list[Gain]


def variants(config: Config) -> list[Variant]:
    """All of them: plain ones first, every other way of the first method after it."""
    return [
        Variant(start, sparsity, method, way)
        for start in config.sparse_from
        for sparsity in config.sparsities
        for method in config.methods
        for way in (PLAIN, *(config.ways if method == config.methods[0] else ()))
        if start == 0 or way != "first"  # the first token is dense there as it is
    ]


def run(config: Config, progress: Progress) -> Result:
    """Calibrate, then every variant that the folder does not hold yet.

    Raises:
        BadOption: an option that cannot be used, a damaged file in the folder.
        BadInput: the text or the model cannot be.
    """
    check(config)
    from experiments.decoding import sink_judge

    return sink_judge.answer(config, progress)


def check(config: Config) -> None:
    """Raises BadOption before the work."""
    some("sparsities", config.sparsities)
    some("methods", config.methods)
    some("sparse-from", config.sparse_from)
    for sparsity in config.sparsities:
        between("sparsities", sparsity, 0, 0.95)
    for start in config.sparse_from:
        within("sparse-from", start, 0, 0.9)
    within("spread", config.spread, 0, 0.5)
    within("windows", config.amounts.windows, 2)
    within("context", config.amounts.context, 64)
    within("calibration", config.amounts.calibration, 1)
    within("rounds", config.amounts.rounds, 0, 8)
    saving.writable("--state", config.state)
    if len(set(config.ways)) < len(config.ways):
        raise BadOption(f"--ways {' '.join(config.ways)}: each once")


def sections(result: Result) -> list[Section]:
    """What happens to sinks; what knowing them is worth."""
    from experiments.decoding import sink_sections

    return sink_sections.sections(result)
