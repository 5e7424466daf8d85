"""Fit and save what a model needs to decode sparsely, and say what it costs on held-out text."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import tyro

from experiments import saving
from experiments.effects import number
from experiments.intervals import Interval, of_few
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section, Table
from experiments.settings import SEEDS, BadOption, Reading, within

DENSE, RECIPE, BARE = "dense", "the recipe", "its channels alone"
RANDOM = "random channels, as many numbers"


@dataclass(frozen=True)
class Target:
    """Where the recipe goes."""

    into: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[OUT]")] = None
    """A new folder for the recipe; without one it is measured, and not kept."""


@dataclass(frozen=True)
class Config:
    """A recipe for decoding: thresholds, and factors where they are asked for."""

    reading: Reading = field(default_factory=Reading)
    target: Target = field(default_factory=Target)
    plan: Path | None = None
    """A plan (plan.json of ctr search): a setting for every linear it names. Default: the same
    for all, as the next options say."""
    sparsity: float = 0.5
    """Share of a linear's numbers that is not read."""
    alpha: float = 1.0
    """Share of what is read that is channels of the weight; the rest is low rank. 1: TEAL."""
    rule: Literal["magnitude", "column"] = "magnitude"
    """A channel is read where |x_j| > t, or where |x_j| times its column's norm is."""
    factors: Literal["svd", "moment"] = "svd"
    """Low rank: the nearest matrix, or the least error on what the channels leave out."""
    head: bool = False
    """The output head too, at the same setting."""
    rounds: int = 2
    """Passes after which thresholds fit what linears read in the sparse model; 0: in the dense."""
    sparse_from: float = 0.0
    """Judged with this share of every window dense, at its start."""
    calibration: int = 16
    """Windows that thresholds and factors are fitted on."""
    windows: int = 16
    """Held-out windows; intervals are over windows."""
    context: int = 256
    """Tokens of a window."""
    seed: int = 0
    """Of the tokens that are kept of the calibration, and of random channels."""


class Row(NamedTuple):
    """nll: nats a token more than the dense model, paired by window. read: numbers of the planned
    linears that a gated token read, over all of theirs."""

    name: str
    ppl: float
    nll: Interval
    read: float


@dataclass(frozen=True)
class Result:
    """linears: in the plan. budget: what it may read of their numbers. bytes: of the file of
    tensors. tokens_sparse: the share of the tokens judged that were gated."""

    config: Config
    inputs: Inputs
    linears: int
    budget: float
    tokens_sparse: float
    rows: list[Row]
    bytes: int | None = None


def run(config: Config, progress: Progress) -> Result:
    """Calibrate, fit, judge, save.

    Raises:
        BadOption: a value out of its range, or a place that is taken.
        BadInput: a plan that is none, or of another model.
    """
    check(config)
    from experiments.decoding import sparsify_run

    return sparsify_run.answer(config, progress)


def check(config: Config) -> None:
    """Before the work. Raises BadOption as `run` does."""
    within("sparsity", config.sparsity, 0, 1)
    within("alpha", config.alpha, 0, 1)
    within("sparse-from", config.sparse_from, 0, 0.99)
    if config.context > 2 and int(config.context * config.sparse_from) > config.context - 2:
        # The last token of a window predicts nothing that is scored.
        raise BadOption(f"--sparse-from {config.sparse_from}: no gated token of {config.context}")
    within("rounds", config.rounds, 0)
    within("seed", config.seed, 0, SEEDS)
    saving.Target(into=config.target.into).check()


def sections(result: Result) -> list[Section]:
    """What it costs, beside its controls."""
    by_name = {row.name: row for row in result.rows}
    found, random = by_name[RECIPE], by_name[RANDOM]
    text = [
        f"A gated token reads {found.read:.1%} of the numbers of {result.linears} linears "
        f"({result.budget:.1%} planned) and is predicted {found.nll} nats worse than by the "
        f"dense model; random channels cost {random.nll}.",
        f"{result.tokens_sparse:.1%} of the tokens judged were gated, the last of every "
        f"window of {result.config.context}.",
    ]
    if BARE in by_name:
        text.append(f"Without its low-rank part, which is left out: {by_name[BARE].nll}.")
    if result.bytes is not None:
        text.append(f"Saved: {result.bytes / 2**20:.1f} MiB beside the model's own weights.")
    return [Section("A recipe for sparse decoding", text, tables=[_table(result)])]


def _table(result: Result) -> Table:
    rows = [
        (row.name, number(row.ppl), str(row.nll) if row.name != DENSE else "–", f"{row.read:.1%}")
        for row in result.rows
    ]
    n = result.rows[0].nll.n
    return Table(
        ("", "perplexity", "Δ nats a token [95%]", "read"),
        rows,
        f"Paired with the dense model, n = {n} windows of {result.inputs.text}. Read: numbers of "
        "the planned linears that a gated token read, channels counted, factors as the kernel "
        f"reads them. Random: channels drawn once, of equal numbers.{of_few(n)}",
    )
