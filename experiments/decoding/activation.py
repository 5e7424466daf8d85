"""How well does a model predict that reads a part of its weights a token? All methods, one budget.

R-Sparse, its baselines, and plans that a search found, at exactly equal bytes read (true shapes),
on the same held-out windows, paired with TEAL. Resumable.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section
from experiments.settings import Reading, between, some, within

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from experiments.decoding.activation_judge import Judged

METHODS = (
    "teal", "teal-unsettled", "teal-signed", "teal-greedy", "teal-greedy-unsettled", "sparse",
    "low-rank", "r-sparse", "r-sparse-unsettled", "r-sparse-moment", "cats", "cats-teal", "griffin",
    "relu", "multi-phase",
)  # fmt: skip
UNSETTLED = "-unsettled"


@dataclass(frozen=True)
class Amounts:
    """How much text: more gives narrower intervals and takes longer."""

    calibration: int = 32
    """Calibration sequences."""
    calibration_seq: int = 256
    """Tokens of a calibration sequence."""
    keep: int = 1024
    """Tokens whose inputs are kept, of every linear: thresholds and factors are taken of them."""
    settling: int = 8
    """Calibration sequences that thresholds are settled on, at most."""
    greedy: int = 2
    """Calibration sequences on which TEAL's greedy compares outputs of blocks."""
    greedy_seq: int = 128
    """Tokens of such a sequence."""
    greedy_step: float = 0.05
    """What a step of it leaves unread, as a share of a d_model x d_model matrix."""
    context: int = 256
    """Tokens of an evaluation window."""
    windows: int = 16
    """Such windows; intervals are over windows."""


@dataclass(frozen=True)
class Config:
    """Sparsify a model by every method at every sparsity, and score the same held-out windows."""

    reading: Reading = field(default_factory=Reading)
    methods: tuple[str, ...] = METHODS
    """teal (uniform), teal-signed (its published thresholds), teal-greedy; sparse (|x| weighed by
    column norms), low-rank, r-sparse (uniform, 5% in plain SVD), r-sparse-moment (5% in the
    stand-in of least output error); cats (as published), cats-teal (TEAL for what CATS reads
    whole); griffin, griffin-sample, griffin-topk-sample, griffin-random, griffin-magnitude;
    relu (swapped in, untrained), multi-phase (what is left out becomes a few constants). With the
    ending -unsettled: thresholds of what linears read in the dense model, as published."""
    sparsities: tuple[float, ...] = (0.4, 0.5, 0.6, 0.7)
    """Shares of the linears' bytes that a token does not read."""
    plans: tuple[Path, ...] = ()
    """Plans (JSON) and recipes (folders) that a search found; each is compared with TEAL of
    exactly its own budget."""
    sparse_from: float = 0.0
    """The share of a window that is dense, as a prompt; only tokens after it are scored."""
    int4: bool = False
    """Quantise the model to INT4 in groups of 128 by GPTQ before everything else."""
    settle: int = 2
    """How often thresholds are taken again, of what is read in the sparse model, for every method
    and plan alike: those of the dense model, as published, read less than the budget allows. 0:
    never. Never for teal-signed, which is TEAL as published, nor for recipes, which stay as they
    were saved."""
    phases: int = 4
    """Constants of multi-phase ReLU."""
    calibration_text: Path | None = None
    """Another text to calibrate on, its first half; default: the first half of --text."""
    amounts: Amounts = field(default_factory=Amounts)
    seed: int = 0
    """Of calibration samples and of GRIFFIN's draws."""
    state: Path = Path("out") / "activation"
    """Folder in which every variant is kept once it is measured: a run goes on from there. The
    code is not part of what it is kept by: take another folder when a method has changed."""


class Variant(NamedTuple):
    """A method, or the name of a plan, at a sparsity; ("dense", 0) is the model as it is."""

    method: str
    sparsity: float
    plan: bool = False


DENSE = Variant("dense", 0.0)
TEAL = "teal"


class Left(NamedTuple):
    """What could not be built at a sparsity, and why."""

    variant: Variant
    why: str


@dataclass(frozen=True)
class Result:
    """The dense model and every variant; `definition` of the perplexities, in words.

    before: perplexity before quantisation, where there was one.
    """

    config: Config
    inputs: Inputs
    calibration: str
    definition: str
    before: float | None
    judged: "list[Judged]"
    left: list[Left]
    facts: dict[str, Any]


def run(config: Config, progress: Progress) -> Result:
    """Load, calibrate, then every variant that the folder does not hold yet.

    Raises:
        BadOption: sizes that measure nothing, a damaged file in the folder.
        BadInput: an unknown method, a plan of another model.
    """
    check(config)
    from experiments.decoding import activation_judge, activation_measure

    work = activation_measure.prepared(config, progress)
    progress.say(f"variants are kept in {config.state}: a run that is killed goes on from there")
    variants = activation_measure.variants(work)
    seen, left = {}, []
    with progress.task("variants", len(variants)) as advance:
        for variant in variants:
            found = activation_measure.measured(work, variant)
            if isinstance(found, str):
                left.append(Left(variant, found))
            else:
                seen[variant] = found
                progress.say(f"{variant.method} {variant.sparsity:g}: {found.nll.mean():.4f} nats")
            advance(f"{variant.method} {variant.sparsity:g}")
    return Result(
        config=config,
        inputs=work.inputs,
        calibration=work.calibration_source,
        definition=work.definition,
        before=work.before,
        judged=activation_judge.judged(seen),
        left=left,
        facts={"linears": len(work.shapes), "numbers": work.numbers},
    )


def check(config: Config) -> None:
    """Refuse what measures nothing, before any work is done for it.

    Raises:
        BadOption: one of the options.
    """
    some("sparsities", config.sparsities)
    if config.methods or not config.plans:
        some("methods", config.methods)
    for sparsity in config.sparsities:
        between("sparsities", sparsity, 0, 1)
    within("sparse-from", config.sparse_from, 0, 0.95)
    within("settle", config.settle, 0)
    within("phases", config.phases, 1)
    within("seed", config.seed, 0, 2**32 - 1)
    amounts = config.amounts
    within("calibration", amounts.calibration, 1)
    within("calibration-seq", amounts.calibration_seq, 2)
    within("keep", amounts.keep, 2)
    within("settling", amounts.settling, 1)
    within("greedy", amounts.greedy, 1, amounts.calibration)
    within("greedy-seq", amounts.greedy_seq, 8, amounts.calibration_seq)
    between("greedy-step", amounts.greedy_step, 0, 10)
    within("context", amounts.context, 3)
    within("windows", amounts.windows, 2)  # one unit has no interval


def sections(result: Result) -> list[Section]:
    """The verdict in a few sentences, one table a sparsity, one picture."""
    from experiments.decoding import activation_sections

    return activation_sections.sections(result)
