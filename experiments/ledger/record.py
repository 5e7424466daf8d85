"""What was measured, as it is kept with the code: one JSON file an experiment."""

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from experiments import serial
from experiments.findings import Finding, Region
from experiments.intervals import Interval
from experiments.ledger import figures
from experiments.output import RESULT
from experiments.settings import BadOption

RECORDS = Path(__file__).parent / "records"
OPTIONS_OF_PLACE = {"--out": 1, "--replace": 0}
TYPES: dict[str, Any] = {
    "command": str, "config": dict, "versions": dict, "result": dict, "inputs": dict,
    "started": str, "question": str, "wall_seconds": int | float, "peak_bytes": int,
    "seed": int | None, "out": str,
}  # fmt: skip
"""Of what a result.json says."""


class Held(NamedTuple):
    """A number with its interval that some page may print. says: what it is."""

    says: str
    mean: float
    low: float
    high: float


class Record(NamedTuple):
    """One run, or what was measured before there were runs of claims.

    kind: "run" (imported from a run's folder) or "earlier" (taken over from the documents).
    preset: of the run; marks: what a reader must know of it ("smallest", "+changes"). config,
    inputs, versions: as the run stored them, without the machine's paths. figures: every interval
    of the run's tables.
    """

    kind: str
    experiment: str
    preset: str
    command: str
    commit: str
    date: str
    seconds: float
    config: Mapping[str, Any]
    inputs: Mapping[str, Any]
    versions: Mapping[str, str]
    findings: Sequence[Finding]
    figures: Sequence[Held]
    marks: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Of its file: the experiment, and preset and seed where they are not the usual ones.

        So a run on other draws is kept beside the first one and not in its place.
        """
        if self.kind == "earlier":
            return f"earlier-{self.experiment}"
        preset = "" if self.preset in ("", "laptop") else f".{self.preset}"
        seed = self.config.get("seed") or 0
        return self.experiment + preset + (f".seed-{seed}" if seed else "")


def of_run(folder: Path, *, force: bool = False) -> Record:
    """The record of a run's folder.

    Raises:
        BadOption: no run of an experiment with claims; its preset is the smallest, whose numbers
            mean nothing, or its code was not committed, and `force` is not given.
    """
    with whole(folder):
        return _of_run(folder, read(folder), force)


def _of_run(folder: Path, run: Mapping[str, Any], force: bool) -> Record:
    from experiments import presets
    from experiments.ledger.claims import CLAIMS

    words = shlex.split(run["command"])
    found = run["result"].get("findings")
    if words[:2] != ["ctr", "experiment"] or not isinstance(found, list) or not found:
        raise BadOption(f"{folder}: a run of {words[1:3]} has no claims; give an experiment's run")
    every = {name: None for name in ("smallest", "laptop", "paper")}
    preset = next(
        (p for p in every if f"--preset {p}" in run["command"] or f"--preset={p}" in words),
        presets.DEFAULT,
    )
    commit = run["versions"].get("commit", "")
    marks = ["the smallest preset: numbers mean nothing"] if preset == "smallest" else []
    marks += [] if commit and "+" not in commit else ["code that was not committed"]
    if marks and not force:
        raise BadOption(f"{folder}: {'; '.join(marks)} (--force takes it, with the mark)")
    findings = [_finding(f) for f in found]
    if strangers := {f.claim for f in findings} - set(CLAIMS):
        raise BadOption(f"{folder}: no claim {min(strangers)} in the roster")
    return Record(
        kind="run",
        experiment=words[2],
        preset=preset,
        command=_told(words),
        commit=commit,
        date=run["started"][:10],
        seconds=run["wall_seconds"],
        config=_tidy(run["config"]),
        inputs=_tidy(run["inputs"]),
        versions={k: v for k, v in run["versions"].items() if k not in ("platform", "commit")},
        findings=findings,
        figures=list(_of_tables(run["result"].get("tables", []))),
        marks=marks,
    )


def read(folder: Path) -> dict[str, Any]:
    """A run's result.json, from its folder or given itself.

    Raises:
        BadOption: there is none, or it is no run.
    """
    file = folder / RESULT if folder.is_dir() else folder
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadOption(f"{file}: no run ({type(error).__name__})") from error
    if not isinstance(run, dict) or not {"command", "config", "versions", "result"} <= run.keys():
        raise BadOption(f"{file}: no run: it has no command, config, versions and result")
    if wrong := [
        key for key, kind in TYPES.items() if key in run and not isinstance(run[key], kind)
    ]:
        raise BadOption(f"{file}: no run: its {wrong[0]} is a {type(run[wrong[0]]).__name__}")
    return run


@contextmanager
def whole(what: object) -> Iterator[None]:
    """Inside, what is read of a stored run has the parts that it was written with.

    Raises:
        BadOption: it has not: the file was changed, or was written by another version.
    """
    try:
        yield
    except BadOption:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        said = " ".join(f"{type(error).__name__} {error}".split())[:120]
        raise BadOption(
            f"{what} is damaged, or of another version ({said}): run it again"
        ) from error


def write(record: Record, folder: Path = RECORDS) -> Path:
    """Keep it; an older record of the same experiment, preset and seed goes."""
    file = folder / f"{record.name}.json"
    plain = serial.plain(record)
    for finding, row in zip(record.findings, plain["findings"], strict=True):
        row["verdict"] = finding.verdict  # for readers; computed anew whenever it is read
    file.write_text(serial.dumps(plain), encoding="utf-8")
    return file


def records(folder: Path = RECORDS) -> list[Record]:
    """All that is kept, by name."""
    found = []
    for file in sorted(folder.glob("*.json")):
        with whole(file):
            plain = json.loads(file.read_text(encoding="utf-8"))
            plain["findings"] = [_finding(f) for f in plain["findings"]]
            plain["figures"] = [Held(**f) for f in plain["figures"]]
            found.append(Record(**plain))
    return found


def _finding(plain: Mapping[str, Any]) -> Finding:
    """A finding as it was before it became JSON; its stored verdict is not read."""
    given = {k: v for k, v in plain.items() if k != "verdict"}
    given["claimed"] = Region(*(float(x) for x in given["claimed"].values()))
    if effect := given["effect"]:
        mean, low, high = (float(effect[k]) for k in ("mean", "low", "high"))
        given["effect"] = Interval(mean, low, high, int(effect["n"]))
    return Finding(**given)


def _of_tables(tables: Sequence[Mapping[str, Any]]) -> Iterator[Held]:
    for table in tables:
        for row in table["rows"]:
            for column, cell in zip(table["columns"], row, strict=True):
                for figure in figures.figures(cell):
                    yield Held(f"{row[0]}: {column}", *figure.values())


def _told(words: Sequence[str]) -> str:
    """The command without the machine's folders."""
    kept, skip = [], 0
    for word in words:
        if skip:
            skip -= 1
        elif word in OPTIONS_OF_PLACE:
            skip = OPTIONS_OF_PLACE[word]
        else:
            kept.append(_tidy(word))
    return shlex.join(kept)


def _tidy(value: Any) -> Any:
    """Paths of this machine become their last part: the content's hash is what counts."""
    if isinstance(value, Mapping):
        return {key: _tidy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if isinstance(value, str) and value.startswith(("/", "~")):
        return Path(value).name
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
