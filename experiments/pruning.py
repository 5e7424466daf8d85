"""What do five methods keep at one budget: perplexity, sinks, tags, weights?

Every method spends what Wanda of the sparsity spends, matrix by matrix. Sinks are compared as sets
with the dense model's, first tokens and guarded later ones apart; tags by whether the heads that
the dense model tags with still write alike into tokens that its sinks caught.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section
from experiments.settings import BadOption, Budget, Reading, between, some, within

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from experiments.pruning_judge import Judged


Allocation = Literal["uniform", "owl", "curves", "sinks"]


@dataclass(frozen=True)
class Amounts:
    """How much text: more gives narrower intervals and takes longer."""

    calibration: int = 16
    """Calibration sequences."""
    calibration_seq: int = 256
    """Tokens of a calibration sequence."""
    context: int = 2048
    """Tokens of an evaluation window."""
    windows: int = 4
    """Such windows; intervals are over windows."""
    limit_windows: int = 0
    """Windows as long as the model was made for, besides."""
    sequences: int = 16
    """Sequences to look for sinks and tags on; as many others choose the heads that tag."""
    seq: int = 128
    """Tokens of such a sequence, at least 64."""
    heads: int = 4
    """Heads to look for tags in: those with most later sinks in the dense model."""


@dataclass(frozen=True)
class Config:
    """Compress a model by every method at every sparsity, and measure all of them alike."""

    reading: Reading = field(default_factory=Reading)
    methods: tuple[str, ...] = ("magnitude", "wanda", "sparsegpt", "oats", "oats-moment")
    """Names as in ctr compress; each must leave one number open: a density or a rank."""
    sparsities: tuple[float, ...] = (0.5, 0.6, 0.7)
    """Shares of the weights that Wanda removes; the others spend what it spends."""
    measure: Literal["kept", "bits", "flops", "bytes_moved"] = "kept"
    """What is spent: numbers kept, bits with places, arithmetic, or traffic a token."""
    allocations: tuple[Allocation, ...] = ("uniform",)
    """Who keeps how much at the same total: every linear alike; blocks with outliers more (owl);
    where one more parameter lowers the measured error most (curves); where sinks are made
    (sinks). The first is what the others of a method are compared with."""
    calibration_text: Path | None = None
    """Another text to calibrate on, its first half; default: the first half of --text."""
    budget: Budget = field(default_factory=Budget)
    """Of this the options other than the sparsity."""
    amounts: Amounts = field(default_factory=Amounts)
    state: Path = Path("out") / "pruned"
    """Folder in which every variant is kept once it is measured: a run goes on from there. The
    code is not part of what it is kept by: take another folder when a method has changed."""


class Variant(NamedTuple):
    """A method at a sparsity; ("dense", 0) is the model as it is."""

    method: str
    sparsity: float
    allocation: Allocation = "uniform"

    @property
    def name(self) -> str:
        """As tables show it."""
        return self.method + ("" if self.allocation == "uniform" else f", {self.allocation}")


DENSE = Variant("dense", 0.0)


@dataclass(frozen=True)
class Result:
    """The dense model and every variant; `definition` of the perplexities, in words."""

    config: Config
    inputs: Inputs
    calibration: str
    definition: str
    limit: int
    heads: int
    places: list[tuple[int, int]]
    judged: "list[Judged]"


def run(config: Config, progress: Progress) -> Result:
    """Load, choose the heads that tag, then every variant that the folder does not hold yet.

    Raises:
        BadOption: sizes that measure nothing, a damaged file in the folder.
        BadInput: an unknown method, or one that cannot be fitted to a budget.
    """
    check(config)
    from experiments import pruning_judge, pruning_read

    work = pruning_read.prepared(config, progress)
    progress.say(f"variants are kept in {config.state}: a run that is killed goes on from there")
    variants = [DENSE] + [
        Variant(method, sparsity, allocation)
        for sparsity in config.sparsities
        for method in config.methods
        for allocation in config.allocations
    ]
    seen = {}
    with progress.task("variants", len(variants)) as advance:
        for variant in variants:
            seen[variant] = pruning_read.measured(work, variant, progress)
            advance(f"{variant.name} {variant.sparsity:g}")
    return Result(
        config=config,
        inputs=work.inputs,
        calibration=work.calibration_source,
        definition=work.definition,
        limit=work.limit,
        heads=work.heads,
        places=work.places,
        judged=pruning_judge.judged(seen),
    )


def check(config: Config) -> None:
    """Refuse what measures nothing, before any work is done for it.

    Raises:
        BadOption: one of the options.
    """
    for name in ("methods", "sparsities", "allocations"):
        some(name, getattr(config, name))
    for sparsity in config.sparsities:
        between("sparsities", sparsity, 0, 1)
    if config.measure != "kept" and set(config.allocations) != {"uniform"}:
        # Allocations count numbers kept: they would spend another amount of anything else.
        raise BadOption(f"--measure {config.measure}: only with --allocations uniform")
    amounts = config.amounts
    within("calibration", amounts.calibration, 1)
    within("calibration-seq", amounts.calibration_seq, 2)
    within("context", amounts.context, 3)
    # One unit has no interval.
    within("windows", amounts.windows, 2)
    within("limit-windows", amounts.limit_windows, 0)
    within("sequences", amounts.sequences, 2)
    within("seq", amounts.seq, 64)
    within("heads", amounts.heads, 1)


def sections(result: Result) -> list[Section]:
    """The verdict in a few sentences, one table a question, one picture."""
    from experiments import pruning_sections

    return pruning_sections.sections(result)
