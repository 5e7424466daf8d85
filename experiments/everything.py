"""Every figure and table of the papers, one after the other; what is done stays done."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, is_dataclass, replace
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from experiments import presets, serial
from experiments.ledger import record
from experiments.ledger.rows import VERDICTS
from experiments.output import RESULT
from experiments.papers.roster import PAPERS
from experiments.presets import Preset
from experiments.progress import Progress, paper
from experiments.settings import BadOption, within
from experiments.sources import sources

_RUN = "from experiments.cli import main; main()"


@dataclass(frozen=True)
class Config:
    """What of the papers to ask, at which size, and where the answers lie."""

    preset: Preset = presets.DEFAULT
    """Of every experiment: smallest, laptop or paper."""
    only: tuple[str, ...] = ("*",)
    """Globs over names, as "r-sparse-*"."""
    text: Path | None = None
    """Text file for every experiment that reads one."""
    out: Path = Path("out/papers")
    """A folder a preset in it, and in that a folder an experiment, with its log beside it."""
    jobs: int = 1
    """How many run at a time, each in a process of its own."""
    minutes: float = 0.0
    """Stop an experiment after this long, as failed; 0: never."""
    replace: bool = False
    """Ask again what is already answered."""


class Asked(NamedTuple):
    """One experiment of the roster with all that decides its answer."""

    name: str
    config: Any
    key: dict[str, Any]
    folder: Path

    def answered(self, known: dict[str, Any]) -> bool:
        """The same configuration and code has been answered, and the answer still lies there."""
        return known.get(self.name, {}).get("key") == self.key and (self.folder / RESULT).is_file()


def main(config: Config) -> int:
    """Ask what is not answered yet; exit code 1 where an experiment failed."""
    within("jobs", config.jobs, 1)
    within("minutes", config.minutes, 0)
    progress, base = Progress(), config.out.resolve() / config.preset
    base.mkdir(parents=True, exist_ok=True)
    notes, lock = base / "answered.json", threading.Lock()
    known = json.loads(notes.read_text(encoding="utf-8")) if notes.is_file() else {}
    every = [_asked(name, config, base) for name in _names(config.only)]
    failed: dict[str, str] = {}

    def answer(asked: Asked) -> None:
        if asked.answered(known) and not config.replace:
            progress.say(f"{asked.name}: as before, {_verdicts(asked.folder)}")
            return
        clock = time.monotonic()
        wrong = _run(asked, config, base)
        seconds = round(time.monotonic() - clock, 1)
        with lock:  # written after each: a kill loses at most what was running
            if wrong:
                failed[asked.name] = wrong
                known.pop(asked.name, None)
            else:
                known[asked.name] = {"key": asked.key, "seconds": seconds}
            partial = notes.with_suffix(".partial")
            partial.write_text(serial.dumps(dict(sorted(known.items()))), encoding="utf-8")
            partial.replace(notes)
        said = f"FAILED: {wrong}" if wrong else _verdicts(asked.folder)
        progress.say(f"{asked.name}: {seconds:.0f} s, {said}")

    with ThreadPoolExecutor(config.jobs) as pool:
        for done in [pool.submit(answer, asked) for asked in every]:
            done.result()
    _print(every, known, failed)
    return 1 if failed else 0


def _names(only: Sequence[str]) -> list[str]:
    names = [name.removeprefix("experiment ") for name in PAPERS]
    for glob in only:
        if not any(fnmatch(name, glob) for name in names):
            raise BadOption(f"--only {glob}: no such experiment; there are {', '.join(names)}")
    return [name for name in names if any(fnmatch(name, glob) for glob in only)]


def _asked(name: str, given: Config, base: Path) -> Asked:
    module = import_module(PAPERS[f"experiment {name}"].module)
    config = module.PRESETS[given.preset]
    if given.text is not None and _reads(config):
        config = replace(config, reading=replace(config.reading, text=given.text.resolve()))
    key = {"config": serial.plain(config), "code": sources(module)}
    return Asked(name, config, json.loads(json.dumps(key)), base / name)


def _reads(config: Any) -> bool:
    reading = getattr(config, "reading", None)
    return is_dataclass(reading) and hasattr(reading, "text")


def _run(asked: Asked, given: Config, base: Path) -> str:
    """Run it in a process of its own; what went wrong, or nothing."""
    options = ["--preset", given.preset, "--out", str(asked.folder), "--replace"]
    if given.text is not None and _reads(asked.config):
        options += ["--text", str(given.text.resolve())]
    command = [sys.executable, "-c", _RUN, "experiment", asked.name, *options]
    log = base / f"{asked.name}.log"
    try:
        with log.open("w", encoding="utf-8") as file:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=60 * given.minutes or None,
            )
    except subprocess.TimeoutExpired:
        return f"stopped after {given.minutes:g} minutes"
    if done.returncode == 0:
        return ""
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"exit code {done.returncode}, {said[-1] if said else 'nothing said'} ({log})"


def _verdicts(folder: Path) -> str:
    found = Counter(f.verdict for f in record.of_run(folder, force=True).findings)
    return ", ".join(f"{found[v]} {v}" for v in VERDICTS if found[v])


def _print(every: Sequence[Asked], known: dict[str, Any], failed: dict[str, str]) -> None:
    """Every claim's verdict, then how long each experiment took, then what failed."""
    console, claims = paper(), Table("claim", "case", "verdict", "found", box=None)
    times = Table("experiment", "seconds", "verdicts", box=None)
    for asked in every:
        if asked.name in failed:
            times.add_row(asked.name, "", "FAILED")
            continue
        times.add_row(asked.name, f"{known[asked.name]['seconds']:.0f}", _verdicts(asked.folder))
        for f in record.of_run(asked.folder, force=True).findings:
            claims.add_row(
                f.claim, f.case, f.verdict, f"{f.effect} {f.unit}" if f.effect else f.note
            )
    console.print(claims)
    console.print()
    console.print(times)
    for name, wrong in failed.items():
        console.print(f"{name} failed: {wrong}")
