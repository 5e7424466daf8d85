"""What a sweep found: a row a finding and grid point, as CSV and JSON, the same however it ran."""

import csv
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import serial, stored
from experiments.store import Row

FOUND = ("claim", "case", "mean", "low", "high", "n", "unit", "over", "claimed", "control",
         "verdict")  # fmt: skip
CSV, JSON = "rows.csv", "rows.json"
_MOST = 200  # scalars of an answer without findings; curves are in the run store


def of(row: Row) -> list[dict[str, Any]]:
    """The findings of a run; where an experiment has none, each number of its answer by name."""
    if "findings" in row.result:
        return [
            dict(zip(FOUND, (f.claim, f.case, *(f.effect or (None,) * 4), f.unit, f.over,
                             str(f.claimed), f.control, f.verdict), strict=True))
            for f in stored.findings(row)
        ]  # fmt: skip
    said = {k: v for k, v in row.result.items() if k not in ("config", "inputs", "kind")}
    return [{"claim": name, "mean": value} for name, value in _scalars(said)][:_MOST]


def _scalars(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _scalars(item, f"{name}.{key}".lstrip("."))
    elif isinstance(value, int | float):
        yield name, value


def write(
    folder: Path, axes: Sequence[str], found: Iterator[tuple[dict[str, Any], str, Row]]
) -> int:
    """Write rows.csv and rows.json whole or not at all; returns how many points they have.

    Of each point its values by axis, its key, and its run. The JSON has beside the findings the
    SHA-256 of the whole answer: equal where every stored number is, bit for bit. No times: the
    files of two sweeps that found the same are the same bytes.
    """
    names, count = [place.rpartition(".")[2] for place in axes], 0
    tables, answers = _Whole(folder / CSV), _Whole(folder / JSON)
    with tables as table, answers as answer:
        writer = csv.writer(table)
        writer.writerow([*names, *FOUND])
        for point, key, row in found:
            told, lines = [_cell(point.get(place)) for place in axes], of(row)
            writer.writerows(
                [*told, *(_cell(line.get(f)) for f in FOUND)] for line in lines or [{}]
            )
            whole = {k: v for k, v in row.result.items() if k != "config"}
            digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
            line = {"point": point, "key": key, "answer_sha256": digest, "findings": lines}
            answer.write("[" if not count else ",\n")
            answer.write(json.dumps(serial.plain(line), ensure_ascii=False))
            count += 1
        answer.write("]\n" if count else "[]\n")
    return count


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return "+".join(map(str, value))
    return "" if value is None else value


class _Whole:
    """A text file that takes its name when the block ends well."""

    def __init__(self, file: Path) -> None:
        self._file, self._partial = file, file.with_name(f".{file.name}.partial-{os.getpid()}")

    def __enter__(self) -> Any:
        self._handle = self._partial.open("w", encoding="utf-8", newline="")
        return self._handle

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            with self._handle:
                if kind is None:
                    self._handle.flush()
                    os.fsync(self._handle.fileno())
            if kind is None:
                self._partial.replace(self._file)
        finally:
            self._partial.unlink(missing_ok=True)
