"""What experiments read and write: results, configurations, texts, the ledger, the run store."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import mutate
from target import Run, allowed, one_line


def result(folder: Path) -> tuple[Run, list[bytes]]:
    """result.json of a run, and all that `ctr runs` shows of it."""
    from experiments import stored
    from experiments.ledger import record

    file = folder / "result.json"

    def run(data: bytes) -> None:
        file.write_bytes(data)
        with suppress(*allowed()):
            record.of_run(folder, force=True)
        row = stored.run(str(folder))
        stored.called(row)
        stored.units(row)
        stored.tables(row)
        stored.findings(row)

    return run, [json.dumps(_result()).encode()]


def _result() -> dict[str, Any]:
    from experiments.ledger.claims import CLAIMS

    finding = {
        "claim": next(iter(CLAIMS)), "case": "a", "unit": "nats", "over": "windows",
        "effect": {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 4},
        "claimed": {"low": 0.0, "high": "inf"}, "control": "b", "note": "", "verdict": "shown",
    }  # fmt: skip
    return {
        "started": "2026-01-01T00:00:00", "command": "ctr experiment x --preset smallest",
        "question": "q", "config": {"kind": "Config", "seed": 0}, "seed": 0, "inputs": {},
        "versions": {"commit": "a"}, "wall_seconds": 1.5, "peak_bytes": 3,
        "result": {"units": {"a": [1.0, 0.5]}, "findings": [finding],
                   "tables": [{"columns": ["a", "b"], "rows": [["x", "0.5 [0.2, 0.7]"]],
                               "caption": ""}]},
    }  # fmt: skip


def config(folder: Path) -> tuple[Run, list[bytes]]:
    """A stored Config, given back as every class that a command has."""
    from importlib import import_module

    from experiments.commands import COMMANDS
    from experiments.restored import restored
    from experiments.serial import plain

    names = ["compress", "perplexity", "probe", "toy train", "evaluate", "experiment tags"]
    kinds = [import_module(COMMANDS[name].module).Config for name in names if name in COMMANDS]

    def run(data: bytes) -> None:
        try:
            said = json.loads(data)
        except (ValueError, RecursionError):
            return
        for kind in kinds:
            with suppress(*allowed()):
                restored(kind, said)

    return run, [json.dumps(plain(kind())).encode() for kind in kinds]


def texts(folder: Path) -> tuple[Run, list[bytes]]:
    """A text, a prompt, and the tasks and summaries of a folder, all from the same bytes."""
    from experiments.fewshot import mmlu, summaries, tasks
    from experiments.parts.r_sparse import domains
    from experiments.probing import prompts
    from experiments.text import read_text

    local = {name: folder / file for name, (file, _) in tasks.LOCAL.items()}
    table = folder / "mmlu" / "dev" / "a_dev.csv"
    other = folder / "a.jsonl"
    for file in (*local.values(), table):
        file.parent.mkdir(parents=True, exist_ok=True)

    def run(data: bytes) -> None:
        for file in (*local.values(), table, other):
            file.write_bytes(data)
        readers: list[Callable[[], Any]] = [
            lambda: read_text(other, "calibration"),
            lambda: prompts.chosen("", other),
            lambda: summaries.read(other, 1),
            lambda: domains._lines(other),
            lambda: mmlu.items(folder / "mmlu", "dev"),
            *(lambda name=name: tasks._read(name, folder) for name in local),
        ]
        for read in readers:
            try:
                read()
            except allowed() as error:
                one_line(error)

    item = json.dumps({"query": "a", "choices": ["b", "c"], "gold": 1})
    summary = json.dumps({"document": "a b", "summary": "b"})
    fields = ",".join(mmlu.FIELDS)
    csv = f"{fields}\nq,a,b,c,d,0\n" if len(mmlu.FIELDS) == 6 else f"{fields}\n"
    return run, [f"{item}\n{item}\n".encode(), f"{summary}\n".encode(), csv.encode()]


def ledger(folder: Path) -> tuple[Run, list[bytes]]:
    """A record of the ledger."""
    from experiments.ledger import record

    def run(data: bytes) -> None:
        (folder / "a.json").write_bytes(data)
        record.records(folder)

    def small(file: Path) -> bytes:
        said = json.loads(file.read_bytes())
        return json.dumps(
            {k: v[:2] if isinstance(v, list) else v for k, v in said.items()}
        ).encode()

    return run, [small(file) for file in sorted(record.RECORDS.glob("*.json"))[:2]]


def memory(folder: Path) -> tuple[Run, list[bytes]]:
    """What is remembered: arrays and facts."""
    import numpy as np

    from experiments.remembered import Found, remembered

    key = {"a": 1}
    remembered(folder, key, lambda: Found({"x": np.arange(3.0)}, {"n": 2, "y": [1.0]}))
    (file,) = folder.glob("*.safetensors")

    def run(data: bytes) -> None:
        file.write_bytes(data)
        remembered(folder, key, lambda: Found({}, {}))

    return run, [file.read_bytes()]


def store(folder: Path) -> tuple[Run, list[bytes]]:
    """A cell of the run store, and the whole file."""
    import sqlite3
    from contextlib import closing

    from experiments import store as runs
    from experiments import stored

    file = folder / "runs.sqlite"
    runs.add(file, **{**_result(), "out": "x"})
    whole = file.read_bytes()

    def run(data: bytes) -> None:
        is_file = data[:6] == b"SQLite"
        file.write_bytes(data if is_file else whole)
        for left in folder.glob("runs.sqlite-*"):
            left.unlink()
        try:
            if not is_file:
                with closing(sqlite3.connect(file)) as connection, connection:
                    text = data.decode("utf-8", "replace")
                    connection.execute("UPDATE runs SET result = ?", (text,))
            for row in runs.rows(file):
                stored.units(row)
                stored.tables(row)
                stored.findings(row)
        except sqlite3.Error:
            pass

    return run, [json.dumps(_result()["result"]).encode(), whole]


def sqlite_changed(data: bytes, rng: Any) -> bytes:
    """As what it is."""
    return (mutate.blind if data[:6] == b"SQLite" else mutate.json_bytes)(data, rng)
