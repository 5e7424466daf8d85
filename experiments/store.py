"""The run store: one SQLite file, one row a run, exported as JSON."""

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from experiments.serial import plain

COLUMNS = (
    "started", "command", "question", "config", "seed", "inputs", "versions", "wall_seconds",
    "peak_bytes", "out", "result",
)  # fmt: skip


class Row(NamedTuple):
    """One run, as it is stored; everything but the numbers is text or JSON text."""

    id: int
    started: str
    command: str
    question: str
    config: dict[str, Any]
    seed: int | None
    inputs: dict[str, Any]
    versions: dict[str, str]
    wall_seconds: float
    peak_bytes: int
    out: str
    result: dict[str, Any]


def store_path() -> Path:
    """$CTR_STORE, or runs.sqlite in the user's data folder."""
    if chosen := os.environ.get("CTR_STORE"):
        return Path(chosen)
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "catch-tag-release" / "runs.sqlite"


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """The store at `path`, made where there is none; what the block writes is kept if it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        try:
            connection.execute("PRAGMA journal_mode=WAL")  # readers, writers at once, and kill -9
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, {', '.join(COLUMNS)})"
            )
        except UnicodeDecodeError as error:  # sqlite quotes what it found
            raise sqlite3.DatabaseError("it is damaged") from error
        yield connection


def add(path: Path, **run: Any) -> int:
    """Store one run; the keywords are the columns. Returns its number."""
    with connected(path) as connection:
        return insert(connection, run)


def insert(connection: sqlite3.Connection, run: Mapping[str, Any]) -> int:
    """Store one run in an open store; the keys are the columns. Returns its number."""
    values = [_cell(run[column]) for column in COLUMNS]
    marks = ", ".join("?" * len(COLUMNS))
    cursor = connection.execute(f"INSERT INTO runs ({', '.join(COLUMNS)}) VALUES ({marks})", values)
    return int(cursor.lastrowid or 0)


def rows(path: Path) -> list[Row]:
    """Every stored run, oldest first."""
    if not path.exists():
        return []
    with connected(path) as connection:
        found = connection.execute(f"SELECT id, {', '.join(COLUMNS)} FROM runs ORDER BY id")
        try:
            return [_row(row) for row in found.fetchall()]
        except UnicodeDecodeError as error:
            raise sqlite3.DatabaseError("a run's text is damaged") from error


def one(connection: sqlite3.Connection, number: int) -> Row:
    """The run of that number.

    Raises:
        sqlite3.DatabaseError: there is none.
    """
    ask = f"SELECT id, {', '.join(COLUMNS)} FROM runs WHERE id = ?"
    if (found := connection.execute(ask, (number,)).fetchone()) is None:
        raise sqlite3.DatabaseError(f"no run {number}")
    return _row(found)


def _row(cells: Sequence[Any]) -> Row:
    return Row(*(_value(name, cell) for name, cell in zip(Row._fields, cells, strict=True)))


JSON_COLUMNS = {"config", "inputs", "versions", "result"}


def _cell(value: Any) -> Any:
    value = plain(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _value(name: str, cell: Any) -> Any:
    """A column that is JSON is an object in every row; anything else was not written here."""
    if name not in JSON_COLUMNS:
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, TypeError, RecursionError) as error:
        raise sqlite3.DatabaseError(f"a run's {name} is damaged") from error
    if not isinstance(value, dict):
        raise sqlite3.DatabaseError(f"a run's {name} is damaged")
    return value
