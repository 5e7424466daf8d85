"""One page of any runs: claims and verdicts of all, then each with its tables and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from experiments import stored
from experiments.parts import page
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Kept, Picture, Section, Table
from experiments.settings import BadOption
from experiments.store import Row


@dataclass(frozen=True)
class Config:
    """Put stored runs on one page."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Numbers of `ctr runs`, or folders of runs."""


@dataclass(frozen=True)
class Result:
    """The runs in the order in which they were named; they are stored where they are."""

    config: Config
    inputs: Inputs
    runs: tuple[str, ...]
    rows: Sequence[Row] = field(metadata={"stored": False})


def run(config: Config, progress: Progress) -> Result:
    """Read every run.

    Raises:
        BadOption: no run is given, one is given twice, or one is not there.
    """
    if not config.runs or len(set(config.runs)) < len(config.runs):
        raise BadOption("report: give one or more runs, each once")
    rows = [stored.run(given) for given in config.runs]
    return Result(config, Inputs(), tuple(map(stored.called, rows)), rows)


def sections(result: Result) -> list[Section]:
    """Claims of all runs together, then a section a run."""
    claims = [finding for row in result.rows for finding in stored.findings(row)]
    found = [page.found(claims)] if claims else []
    return found + [_section(i + 1, row) for i, row in enumerate(result.rows)]


def _section(number: int, row: Row) -> Section:
    facts = {"model": row.inputs.get("model"), "text": row.inputs.get("text"),
             "BOS": row.inputs.get("bos"), "commit": row.versions.get("commit")}  # fmt: skip
    text = [
        f"{row.command}, started {row.started}, {row.wall_seconds:.0f} s. "
        + "; ".join(f"{name} {value}" for name, value in facts.items() if value)
    ]
    tables, pictures = stored.tables(row), list(_pictures(number, row))
    if not tables:
        text.append(f"Its own page, with tables, was written to {row.out}.")
    return Section(f"{number}. {row.question}", text, [*tables, _units(row)], pictures)


def _pictures(number: int, row: Row) -> list[Picture]:
    """Those that still lie in the run's folder, as they were drawn."""
    stems = [file.with_suffix("") for file in sorted((Path(row.out) / "pictures").glob("*.svg"))]
    # Not Path.with_suffix on a stem: a name may hold a dot, which a new name must not.
    whole = [stem for stem in stems if Path(f"{stem}.png").exists()]
    return [Picture(f"{number}-{stem.name.replace('.', '-')}", Kept(stem), stem.name)
            for stem in whole]  # fmt: skip


def _units(row: Row) -> Table:
    """Means of what the run has values of, unit by unit; empty where it has none."""
    import numpy as np

    from experiments.intervals import interval

    lines = []
    for name, values in stored.units(row).items():
        finite = values[np.isfinite(values)]
        if len(finite) > 1:
            lines.append((name, str(interval(finite)), str(len(finite))))
    return Table(("values", "mean", "n"), lines, "95% intervals over units." if lines else "")
