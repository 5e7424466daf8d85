"""Answers by key, in a run store: what was answered once, in whatever sweep, is not asked again."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments import store

_TABLE = "CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY, run INTEGER NOT NULL)"
_AT_A_TIME = 500  # SQLite bounds the number of ? in a question


@contextmanager
def keeping(path: Path) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """`keep(key, row)` stores a run and its key, both or neither, before it returns.

    A key that is there stays as it is. The store stays open in between: to open and close it for
    each run costs more than the run's row.
    """
    with store.connected(path) as connection:
        connection.execute(_TABLE)
        connection.commit()
        # No wait for the disk: a killed process loses nothing, a power cut the last runs.
        connection.execute("PRAGMA synchronous=NORMAL")

        def keep(key: str, row: dict[str, Any]) -> None:
            connection.execute("BEGIN IMMEDIATE")  # two sweeps may bring one answer at once
            taken = connection.execute("SELECT 1 FROM keys WHERE key = ?", (key,)).fetchone()
            if not taken:
                number = store.insert(connection, row)
                connection.execute("INSERT INTO keys VALUES (?, ?)", (key, number))
            connection.commit()

        yield keep


def known(path: Path, keys: Sequence[str]) -> dict[str, int]:
    """The number of the run that answers each key; only those that are answered."""
    if not path.exists():
        return {}
    found: dict[str, int] = {}
    with store.connected(path) as connection:
        connection.execute(_TABLE)
        for start in range(0, len(keys), _AT_A_TIME):
            some = keys[start : start + _AT_A_TIME]
            marks = ", ".join("?" * len(some))
            ask = f"SELECT key, run FROM keys WHERE key IN ({marks})"
            found |= dict(connection.execute(ask, some).fetchall())
    return found


def runs(path: Path, numbers: Sequence[int]) -> Iterator[store.Row]:
    """The runs of these numbers, in their order, one in memory at a time."""
    with store.connected(path) as connection:
        for number in numbers:
            yield store.one(connection, number)


def adopt(path: Path, other: Path, keys: Sequence[str]) -> int:
    """Copy the answers to these keys from another store; returns how many there were."""
    try:
        there = known(other, keys)
        with keeping(path) as keep:
            for key, row in zip(there, runs(other, list(there.values())), strict=True):
                keep(key, {name: getattr(row, name) for name in store.COLUMNS})
    except sqlite3.DatabaseError as error:
        raise sqlite3.DatabaseError(
            f"{other}: {error}; delete it, its runs are asked again"
        ) from error
    return len(there)
