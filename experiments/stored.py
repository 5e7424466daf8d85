"""Runs as they were stored: by their number in the run store, or from their folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments import store
from experiments.findings import Finding
from experiments.ledger import record
from experiments.report import Table
from experiments.restored import restored
from experiments.settings import BadOption
from experiments.store import Row

NO_NUMBER = 0
"""Of a run that was read from its folder."""


def run(given: str) -> Row:
    """The run of that number in the store, or of that folder (or its result.json).

    Raises:
        BadOption: there is none.
    """
    if given.isdigit() and not Path(given).exists():
        path = store.store_path()
        for row in store.rows(path):
            if row.id == int(given):
                return row
        raise BadOption(f"no run {given} in {path} (ctr runs lists them)")
    if not given or not Path(given).exists():
        raise BadOption(f"run {given!r}: give a number of ctr runs, or a run's folder")
    read = record.read(Path(given))
    folder = Path(given) if Path(given).is_dir() else Path(given).parent
    known = {name: read[name] for name in Row._fields if name in read}
    with record.whole(given):
        return Row(**{"id": NO_NUMBER, "inputs": {}, **known, "out": str(folder.absolute())})


def called(row: Row) -> str:
    """A name for readers: the number, or the folder's name; and the command."""
    return f"{row.id or Path(row.out).name}: {row.command}"


def units(row: Row) -> dict[str, Float[np.ndarray, " unit"]]:
    """By name, one value a window, sequence, item or seed; empty where a run stored none."""
    found = row.result.get("units")
    if not isinstance(found, Mapping):
        return {}
    with record.whole(called(row)):
        return {name: np.array(values, np.float64) for name, values in found.items()}


def findings(row: Row) -> list[Finding]:
    """What the run says of claims; verdicts follow from them anew."""
    with record.whole(called(row)):
        return [restored(Finding, _unsaid(found)) for found in row.result.get("findings") or []]


def tables(row: Row) -> list[Table]:
    """The run's tables; an experiment that stores none has none here."""
    found: list[Any] = row.result.get("tables") or []
    with record.whole(called(row)):
        return [Table(table["columns"], table["rows"], table["caption"]) for table in found]


def _unsaid(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "verdict"}
