"""Which start, rule and data tail lead to catch, tag, release? Thousands of seeds, resumable."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from experiments.intervals import Interval, interval
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Picture, Section, Table
from experiments.settings import SEEDS, BadOption, between, within

if TYPE_CHECKING:  # jax is imported when the question is asked, not for --help
    from toy.atlas import Outcome, Place, Rate
    from toy.sweep_plan import Cell, Plan

MOST = 100_000  # seeds a cell; memory grows with `lanes`, time with this


@dataclass(frozen=True)
class Config:
    """Train every initialisation by every optimiser on every data tail."""

    initialisations: tuple[Literal["diagonal", "default-init", "tagged"], ...] = (
        "diagonal",
        "default-init",
        "tagged",
    )
    """Where seeds start; tagged is default-init with --s-tag and --s-num-noise."""
    s_tag: float = 4.0
    """tagged: where s_tag starts."""
    s_num_noise: float = 0.1
    """tagged: standard deviation of s_num around 0."""
    optimizers: tuple[Literal["adam", "adamw", "sgd", "sign", "muon"], ...] = (
        "adam",
        "adamw",
        "sgd",
        "sign",
        "muon",
    )
    """Update rules."""
    data: tuple[Literal["gaussian", "uniform", "laplace"], ...] = (
        "gaussian",
        "uniform",
        "laplace",
    )
    """Distributions of the numbers to average."""
    seeds: int = 64
    """Initial draws a cell; the same in every cell."""
    steps: int = 2000
    """Minibatches; a multiple of --checkpoints."""
    checkpoints: int = 20
    """Points at which the history is recorded and the state may be written."""
    batch: int = 64
    """Sequences a minibatch."""
    lanes: int = 256
    """Seeds trained side by side: memory grows with it."""
    sequences: int = 1024
    """Held-out sequences to judge on."""
    seed: int = 0
    """What all randomness is derived from."""
    state: Path | None = None
    """Folder for the state, with which a run that was killed goes on; default: one for these
    options below out/sweeps."""
    save_every: float = 20.0
    """Seconds of work that may be lost."""


class Row(NamedTuple):
    """One cell: how many of its seeds found the mechanism, and in which basin they ended."""

    cell: "Cell"
    found: "Rate"
    fvu: float  # median over the finite seeds
    diverged: int
    basins: dict[str, int]  # of the found seeds, at the end
    outcome: "Outcome"


class Foretold(NamedTuple):
    """How well an initialisation's fate is told from where it starts."""

    initialisation: str
    names: tuple[str, ...]
    coefficients: tuple[float, ...]  # per standard deviation of the feature
    accuracy: Interval
    control: Interval
    gain: Interval  # paired by draw
    cells: int


@dataclass(frozen=True)
class Result:
    """Every cell, and what can be told beforehand."""

    config: Config
    inputs: Inputs
    plan: "Plan"
    rows: list[Row]
    atlas: "dict[str, list[Rate]]"  # initialisation -> 16 combinations of initial signs
    foretold: list[Foretold]


def run(config: Config, progress: Progress) -> Result:
    """Train what the state folder does not hold yet, then judge.

    Raises:
        BadOption: see `check`.
        Refused: the state folder holds another sweep, or is in use.
    """
    check(config)
    from toy.atlas import by_signs, outcome
    from toy.sweep import Report, sweep
    from toy.sweep_plan import groups

    plan = _plan(config)
    folder = config.state or Path("out") / "sweeps" / _name(plan)
    progress.say(f"state in {folder}: a run that is killed goes on from there")
    total = len(groups(plan)) * plan.checkpoints
    with progress.task(f"train {_seeds(plan)} seeds", total) as advance:
        trials = sweep(plan, folder, Report(advance, progress.say), every=config.save_every)
    rows = []
    with progress.task("judge", len(trials)) as advance:
        for trial in trials:
            rows.append(_row(trial.cell, outcome(trial, sequences=config.sequences)))
            advance(f"{trial.cell.optimizer} on {trial.cell.data}")
    atlas = {}
    for name in plan.initialisations:
        here = [row.outcome for row in rows if row.cell.initialisation == name]
        starts = [np.concatenate(field) for field in zip(*(o.start for o in here), strict=True)]
        atlas[name] = by_signs(
            type(here[0].start)(*starts), np.concatenate([o.found for o in here])
        )
    return Result(config, Inputs(dtype="float32"), plan, rows, atlas, _foretell(plan, rows))


def check(config: Config) -> None:
    """Refuse what trains nothing, before any work is done for it.

    Raises:
        BadOption: one of the options.
    """
    for name in ("initialisations", "optimizers", "data"):
        chosen = getattr(config, name)
        if not chosen or len(set(chosen)) != len(chosen):
            raise BadOption(f"--{name} {' '.join(chosen)}: give one or more, each once")
    within("seeds", config.seeds, 1, MOST)
    within("checkpoints", config.checkpoints, 1)
    within("steps", config.steps, config.checkpoints)
    if config.steps % config.checkpoints:
        raise BadOption(f"--steps {config.steps}: give a multiple of --checkpoints")
    within("batch", config.batch, 1, 4096)
    within("lanes", config.lanes, 1, 4096)
    within("sequences", config.sequences, 2, 1_000_000)
    within("seed", config.seed, 0, SEEDS)
    within("save-every", config.save_every, 0)
    within("s-num-noise", config.s_num_noise, 0, 1000)
    between("s-tag", config.s_tag, -1000, 1000)


def _plan(config: Config) -> "Plan":
    from toy.sweep_plan import Plan

    known = {field: getattr(config, field) for field in Plan.__dataclass_fields__
             if hasattr(config, field)}  # fmt: skip
    return Plan(**known)


def _name(plan: "Plan") -> str:
    """A folder name for these options and no others."""
    return hashlib.sha256(json.dumps(asdict(plan)).encode()).hexdigest()[:12]


def _seeds(plan: "Plan") -> int:
    return len(plan.initialisations) * len(plan.optimizers) * len(plan.data) * plan.seeds


def _row(cell: "Cell", seen: "Outcome") -> Row:
    from toy.atlas import BASINS, basin, wilson

    ends = basin(seen.end)[seen.found]
    finite = seen.fvu[np.isfinite(seen.fvu)]
    return Row(
        cell,
        wilson(int(seen.found.sum()), len(seen.found)),
        float(np.median(finite)) if len(finite) else float("nan"),
        int((~seen.finite).sum()),
        {name: int((ends == number).sum()) for number, name in enumerate(BASINS)},
        seen,
    )


def _foretell(plan: "Plan", rows: list[Row]) -> list[Foretold]:
    """For every initialisation in which anything is left to tell."""
    from toy.predict import predict

    told = []
    for name in plan.initialisations:
        here = [row for row in rows if row.cell.initialisation == name]
        found = np.stack([row.outcome.found for row in here])
        if plan.seeds < 4 or found.all() or not found.any():
            continue
        seen = predict(_features(here[0].outcome.start), ("sign w", "s_tag"), found)
        told.append(
            Foretold(
                name,
                seen.names,
                tuple(float(c) for c in seen.coefficients),
                interval(seen.accuracy),
                interval(seen.control),
                interval(seen.accuracy - seen.control),
                seen.cells,
            )
        )
    return told


def _features(start: "Place") -> np.ndarray:
    return np.stack([np.sign(start.w), start.s_tag], axis=1)


def sections(result: Result) -> list[Section]:
    """The table of cells, the atlas, and what is foretold."""
    from experiments import sweep_pictures

    n, found = _seeds(result.plan), sum(row.found.hits for row in result.rows)
    text = [
        f"{found} of {n} seeds found the mechanism (less than 10% of the target's variance "
        "unexplained, and more than 0.9 of the attention after [SEP] on [SEP]).",
        *_told(result),
    ]
    picture = Picture(
        "atlas",
        sweep_pictures.atlas(result),
        "Left: each seed where it starts, w = -W_V1[1, 1] and s_tag, or d = (W_Q W_K)[1, 1] where "
        "all start at one s_tag; the share of the cells in which it found the mechanism. Right: "
        "the same by initial signs; found of n. "
        f"{result.plan.seeds} draws, {len(result.rows)} cells, {result.plan.steps} steps.",
    )
    return [
        Section("Which start, rule and data lead there", text, [_cells(result)]),
        Section("The atlas of basins", [_ends(result)], [_signs(result)], [picture]),
    ]


def _told(result: Result) -> list[str]:
    return [
        f"From {told.initialisation}, the sign of w and s_tag before the first step foretell a "
        f"seed's fate with accuracy {told.accuracy} on {told.accuracy.n} held-out draws; the "
        f"cells' base rates alone with {told.control}; gain {told.gain}."
        for told in result.foretold
    ]


def _ends(result: Result) -> str:
    total: dict[str, int] = {}
    for row in result.rows:
        for name, count in row.basins.items():
            total[name] = total.get(name, 0) + count
    ended = ", ".join(f"{name} {count}" for name, count in total.items())
    return f"Where the found seeds ended, by the signs of w and d: {ended}."


def _cells(result: Result) -> Table:
    rows = [
        (row.cell.initialisation, row.cell.optimizer, row.cell.data, str(row.found),
         f"{row.fvu:.3g}", str(row.diverged),
         ", ".join(f"{name} {count}" for name, count in row.basins.items() if count) or "–")
        for row in result.rows
    ]  # fmt: skip
    return Table(
        ("start", "rule", "data", "found", "FVU", "diverged", "basins at the end"),
        rows,
        f"found: of n seeds, with Wilson's 95% interval; FVU: median of the finite seeds on "
        f"{result.config.sequences:,} held-out sequences.",
    )


def _signs(result: Result) -> Table:
    rows = []
    for name, rates in result.atlas.items():
        for code, rate in enumerate(rates):
            if rate.n:
                signs = tuple("-" if code >> bit & 1 else "+" for bit in (3, 2, 1, 0))
                rows.append((name, *signs, str(rate)))
    return Table(
        ("start", "w", "d", "s_tag", "s_num", "found"),
        rows,
        "Initial signs; all cells of the initialisation together, whose draws are the same: "
        "the intervals take trials for independent and are too narrow.",
    )
