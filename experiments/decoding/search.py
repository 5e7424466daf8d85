"""Which linear should read how much? Plans of one budget, searched on one half of a text.

Judged on the other half, which no search has seen, at the bytes really read: thresholds are those
of the gated model's own inputs, and the share of channels that was read is counted.
"""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from experiments import saving
from experiments.decoding.activation_judge import TOLERANCE, bought
from experiments.effects import number, percent
from experiments.intervals import Interval, of_few
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.recalls import clear
from experiments.report import Section, Table
from experiments.settings import SEEDS, Reading, between, within

Method = Literal["knapsack", "evolution"]
DENSE, TEAL, R_SPARSE = "dense", "uniform, channels only (TEAL)", "uniform, ρ = 0.95 (R-Sparse)"
PLAIN, FOUND = "knapsack, channels only", "found"


@dataclass(frozen=True)
class Config:
    """Search a plan, write it, and judge it on held-out text beside uniform plans."""

    reading: Reading = field(default_factory=Reading)
    method: Method = "knapsack"
    """knapsack: costs in nats by one backward pass, the best sum, then local search. evolution:
    R-Sparse's, over the share of the low-rank term at one sparsity."""
    sparsity: float = 0.5
    """Share of the bytes of all linears that is not read."""
    save: Path | None = None
    """Folder for the plan (plan.json) and the recipe fitted to it, to be given to others."""
    state: Path = Path("out") / "searched"
    """What was measured, one file a search: a run that is killed goes on from there."""
    calibration: int = 8
    """Windows that thresholds, factors and costs are taken of."""
    samples: int = 16
    """Windows that a trial is judged by, of the same half of the text, no calibration window."""
    length: int | None = None
    """Tokens of such a window. Default: 128, and 32 for evolution, which asks far more often."""
    windows: int = 24
    """Held-out windows; intervals are over windows."""
    context: int = 256
    """Tokens of a calibration window and of a held-out window."""
    rounds: int = 2
    """knapsack: rounds of the local search; 0: none."""
    population: int = 32
    """evolution: vectors of a generation."""
    generations: int = 5
    """evolution: generations of each group."""
    group: int = 28
    """evolution: linears that are searched at a time."""
    processes: int = 0
    """Processes that share the trials; 0: as many as cores. Plans do not depend on it."""
    seed: int = 0
    """Of sampled labels and of evolution."""


class Judged(NamedTuple):
    """One plan on held-out text. planned, read: shares of the dense bytes, as budgeted and as
    counted. above: nats a token above the dense model. teal: the same less TEAL's, paired."""

    name: str
    ppl: float
    planned: float
    read: float
    above: Interval
    teal: Interval | None


class Kind(NamedTuple):
    """Linears of one kind in the plan found: the share of their bytes that is read, how many have
    a low-rank term, the share of the bytes read that such terms are, how many weigh columns."""

    kind: str
    linears: int
    read: float
    low_rank: int
    factors: float
    columns: int


@dataclass(frozen=True)
class Result:
    """The plan, by linear; how it was found; how it and others do."""

    config: Config
    inputs: Inputs
    searched_loss: float
    measured: int
    plan: dict[str, Any]
    judged: list[Judged]
    kinds: list[Kind]


def run(config: Config, progress: Progress) -> Result:
    """Calibrate, search, judge.

    Raises:
        BadOption: an option that cannot be used.
        BadInput: the text or the model cannot be, or the state is of another search.
    """
    between("sparsity", config.sparsity, 0, 1)
    for option, least in (("calibration", 1), ("samples", 1), ("windows", 2), ("processes", 0)):
        within(option, getattr(config, option), least)
    within("length", length(config), 2, config.context)
    within("rounds", config.rounds, 0)
    within("seed", config.seed, 0, SEEDS)
    within("population", config.population, 4)
    within("generations", config.generations, 0)
    within("group", config.group, 1)
    if config.save is not None:
        saving.new("--save", config.save)
    saving.writable("--state", config.state)
    from experiments.decoding import search_run

    return search_run.answer(config, progress)


def length(config: Config) -> int:
    """Tokens of a window that trials are judged by."""
    if config.length is not None:
        return config.length
    return 32 if config.method == "evolution" else 128


def processes(config: Config) -> int:
    """As many as asked for, or as cores that this process may use."""
    return config.processes or len(os.sched_getaffinity(0))


def sections(result: Result) -> list[Section]:
    """What the plan is worth, and where the low-rank term is."""
    tables = [_table(result), _kinds(result)]
    return [Section("A plan for what every linear reads", _text(result), tables)]


def _text(result: Result) -> list[str]:
    config, found = result.config, result.judged[-1]
    teal = next(one for one in result.judged if one.name == TEAL)
    assert found.teal is not None
    unequal = "; that is no win: it reads more" if bought(found.teal, found.read, teal.read) else ""
    said = {-1: "predicts better than", 1: "predicts worse than", 0: "cannot be told from"}
    ranked = sum(kind.low_rank for kind in result.kinds)
    every = sum(kind.linears for kind in result.kinds)
    return [
        f"At {percent(config.sparsity)} of the bytes not read, the plan that {config.method} found "
        f"{said[clear(found.teal)]} TEAL's uniform one on held-out text: {_signed(found.teal)} "
        f"nats a token, {found.read:.4f} of the bytes read (planned {found.planned:.4f}; TEAL: "
        f"{teal.read:.4f}){unequal}.",
        f"The search gave {ranked} of {every} linears a low-rank term, and left it out of the "
        f"others. {result.measured} trials were measured; the loss that the search saw is "
        f"{result.searched_loss:.4f}.",
    ]


def _table(result: Result) -> Table:
    rows = [
        (
            one.name,
            number(one.ppl),
            f"{one.planned:.4f}",
            f"{one.read:.4f}",
            _signed(one.above),
            "–" if one.teal is None else _signed(one.teal),
        )
        for one in result.judged
    ]
    n = result.judged[0].above.n
    return Table(
        ("plan", "perplexity", "bytes planned", "read", "Δ nats a token", "less TEAL"),
        rows,
        f"Held-out half of {result.inputs.text}, every token gated; thresholds of the gated "
        f"model's own inputs; 95% intervals over {n} windows of {result.config.context} tokens, "
        "paired. Read: channels as counted, factors whole; who reads over "
        f"{100 * TOLERANCE:g} points more is not said to win. The draw of the calibration text is "
        f"not in the intervals.{of_few(n)}",
    )


def _kinds(result: Result) -> Table:
    rows = [
        (
            kind.kind,
            str(kind.linears),
            f"{kind.read:.3f}",
            str(kind.low_rank),
            f"{kind.factors:.3f}",
            str(kind.columns),
        )
        for kind in result.kinds
    ]
    return Table(
        ("linears", "how many", "share read", "with low rank", "factors' share", "column rule"),
        rows,
        "Where the search chose a low-rank term: of the bytes that linears of a kind read, those "
        "of factors.",
    )


def _signed(found: Interval) -> str:
    if not math.isfinite(found.mean):
        return "not a number"
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
