"""The folder of a sweep: whose it is, and what is answered in it."""

import csv
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from experiments import serial, store
from experiments.progress import Progress, paper
from experiments.settings import BadOption
from experiments.sweeping import kept, plan, rows
from experiments.sweeping.plan import Plan

SWEEP, FAILED = "sweep.json", "failed.json"


def claim(out: Path, found: Plan) -> None:
    """The folder, for this experiment; the grid may have grown.

    Raises:
        BadOption: it holds another sweep, or files that no sweep wrote.
    """
    own(out, found)
    note = {"asked": found.asked, "axes": found.axes, "runs": len(found.jobs)}
    out.mkdir(parents=True, exist_ok=True)
    whole(out / SWEEP, serial.dumps(note))


def own(out: Path, found: Plan) -> None:
    """Raises BadOption where the folder holds another sweep, or files that no sweep wrote."""
    # What begins with a dot is being written, perhaps by another node's first moment.
    if out.is_dir() and any(not file.name.startswith(".") for file in out.iterdir()):
        if not (out / SWEEP).is_file():
            raise BadOption(f"--out {out} holds files that no sweep wrote; choose another folder")
        before = json.loads((out / SWEEP).read_text(encoding="utf-8")).get("asked")
        if before != found.asked:
            raise BadOption(f"--out {out} holds a sweep of {before}; choose another folder")


def write(out: Path, found: Plan, path: Path, progress: Progress) -> None:
    """Write the rows of all points that are answered, in the order of the grid.

    Raises:
        BadOption: there are none, and no folder of the sweep.
    """
    hashes = [job.hash for job in found.jobs]
    answered = kept.known(path, hashes)
    there = [i for i, key in enumerate(hashes) if key in answered]

    def every() -> Iterator[tuple[dict[str, Any], str, store.Row]]:
        runs = kept.runs(path, [answered[hashes[i]] for i in there])
        for i, row in zip(there, runs, strict=True):
            yield found.points[i], hashes[i], row

    if not there and not out.is_dir():
        raise BadOption(f"--show: nothing of {found.asked} is answered yet")
    out.mkdir(parents=True, exist_ok=True)
    count = rows.write(out, found.axes, every())
    progress.say(f"{count} of {len(hashes)} runs in {out / rows.CSV} and {rows.JSON}")


def show(out: Path) -> int:
    """Print rows.csv as a table; what failed last is said below it.

    Raises:
        BadOption: there is none.
    """
    file = out / rows.CSV
    if not file.is_file():
        raise BadOption(f"--show: no {file}; give a sweep's --out, or the sweep's own command")
    with file.open(encoding="utf-8", newline="") as handle:
        lines = csv.reader(handle)
        table = Table(*next(lines), box=None)
        for line in lines:
            table.add_row(*(_short(cell) for cell in line))
    console = paper()
    console.print(table)
    if (out / FAILED).is_file():
        for one in json.loads((out / FAILED).read_text(encoding="utf-8")):
            console.print(f"failed: {plan.told(one['point'])}: {one['failed']}")
    return 0


def _short(cell: str) -> str:
    try:
        return f"{float(cell):.6g}" if "." in cell else cell
    except ValueError:
        return cell


def whole(file: Path, text: str) -> None:
    """Write a file of the folder, whole or not at all."""
    # Nodes share the folder, and their processes may have the same numbers.
    partial = file.with_name(f".{file.name}.partial-{platform.node()}-{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
