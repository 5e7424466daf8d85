"""The stored runs: which there are, what one found, and all of them as CSV or JSON."""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import tyro
from rich.table import Table

from experiments import serial, store, stored
from experiments.progress import paper
from experiments.settings import BadOption
from experiments.store import Row

FACTS = ("run", "started", "command", "model", "model_sha256", "text_sha256", "commit", "seconds",
         "peak_bytes")  # fmt: skip
FOUND = (
    "claim",
    "case",
    "mean",
    "low",
    "high",
    "n",
    "unit",
    "over",
    "claimed",
    "control",
    "verdict",
)
UNITS = ("name", "index", "value")


@dataclass(frozen=True)
class Config:
    """What to show of the run store."""

    which: tyro.conf.Positional[tuple[str, ...]] = ()
    """Runs to show whole, by number or folder; without any, all are listed."""
    about: str = ""
    """Only runs whose command or question has these words."""
    model: str = ""
    """Only runs of a model whose name has these letters."""
    since: str = ""
    """Only runs started on this day (2026-01-31) or later."""
    json: bool = False
    """Everything that is stored, as JSON on standard output."""
    export: Path | None = None
    """A new file, .csv or .json: a line a finding, or everything that is stored."""
    units: bool = False
    """With --export x.csv: a line a window, sequence, item or seed instead."""
    last: int = 20
    """How many runs, the newest last; 0: all."""


def main(config: Config) -> int:
    """Print or export the runs; exit code 0."""
    found = _chosen(config)
    if config.export is not None:
        _export(config.export, found, units=config.units)
    elif config.json:
        sys.stdout.write(serial.dumps(found))
    elif config.which:
        for row in found:
            _show(row)
    else:
        _list(found)
    return 0


def _chosen(config: Config) -> list[Row]:
    """The runs that are named, or the last of those that the filters leave."""
    if config.which:
        return [stored.run(given) for given in config.which]
    found = [
        row
        for row in store.rows(store.store_path())
        if config.about in f"{row.command} {row.question}"
        and config.model in str(row.inputs.get("model") or "")
        and config.since <= row.started
    ]
    return found[-config.last :] if config.last > 0 else found


def _list(found: Sequence[Row]) -> None:
    columns = ("run", "started", "command", "model", "seconds", "peak GiB", "verdicts", "out")
    table = Table(*columns, box=None)
    for row in found:
        table.add_row(
            str(row.id),
            row.started,
            row.command,
            str(row.inputs.get("model") or "")[-30:],
            f"{row.wall_seconds:.0f}",
            f"{row.peak_bytes / 2**30:.2f}",
            _verdicts(row),
            row.out,
        )
    paper().print(table)


def _verdicts(row: Row) -> str:
    """How many findings were shown, contradicted, and so on; empty without findings."""
    given = [finding.verdict for finding in stored.findings(row)]
    return ", ".join(f"{given.count(one)} {one}" for one in dict.fromkeys(given))


def _show(row: Row) -> None:
    """The facts of a run, what it found of claims, and what it has values of."""
    console = paper()
    console.print(stored.called(row), style="bold")
    facts = {"question": row.question, "started": row.started, "seconds": row.wall_seconds,
             "out": row.out, **row.inputs, **row.versions}  # fmt: skip
    grid = Table(box=None, show_header=False)
    for name, value in facts.items():
        if name != "kind" and value not in (None, "", [], {}):
            grid.add_row(name.replace("_", " "), str(value))
    grid.add_row("config", json.dumps(row.config, ensure_ascii=False))
    console.print(grid)
    if findings := stored.findings(row):
        table = Table("claim", "case", "found", "claimed", "n", "verdict", box=None)
        for f in findings:
            effect = f"{f.effect} {f.unit}" if f.effect else f.note
            n = f"{f.effect.n} {f.over}" if f.effect else ""
            table.add_row(f.claim, f.case, effect, str(f.claimed), n, f.verdict)
        console.print(table)
    for name, values in stored.units(row).items():
        console.print(f"{name}: {len(values)} values", style="dim")


def _export(file: Path, found: Sequence[Row], *, units: bool) -> None:
    """Write the file, which must be new.

    Raises:
        BadOption: it is there, or is neither .csv nor .json. OSError: it cannot be written.
    """
    kinds = {".csv": _csv, ".json": _json}
    if file.suffix not in kinds:
        raise BadOption(f"--export {file}: give a file that ends in .csv or .json")
    try:
        with file.open("x", encoding="utf-8", newline="") as handle:
            kinds[file.suffix](handle, found, units)
    except FileExistsError as error:
        raise BadOption(f"--export {file} exists; choose another or remove it") from error


def _json(handle: TextIO, found: Sequence[Row], units: bool) -> None:
    handle.write(serial.dumps(found))


def _csv(handle: TextIO, found: Sequence[Row], units: bool) -> None:
    """One line a finding, empty where a run has none; or one line a unit."""
    writer = csv.writer(handle)
    writer.writerow(FACTS + (UNITS if units else FOUND))
    for row in found:
        facts = _facts(row)
        lines = list(_of_units(row) if units else _of_findings(row))
        empty = [] if units else [("",) * len(FOUND)]
        writer.writerows(facts + line for line in lines or empty)


def _facts(row: Row) -> tuple[Any, ...]:
    own = (row.inputs.get(name) for name in ("model", "model_sha256", "text_sha256"))
    commit = row.versions.get("commit", "")
    return (row.id, row.started, row.command, *own, commit, row.wall_seconds, row.peak_bytes)


def _of_findings(row: Row) -> Iterator[tuple[Any, ...]]:
    for f in stored.findings(row):
        effect = f.effect or ("", "", "", "")
        yield (f.claim, f.case, *effect, f.unit, f.over, str(f.claimed), f.control, f.verdict)


def _of_units(row: Row) -> Iterator[tuple[Any, ...]]:
    for name, values in stored.units(row).items():
        for i, value in enumerate(values.tolist()):
            yield (name, i, value)
