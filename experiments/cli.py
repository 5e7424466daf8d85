"""`ctr`: every question of this project as a command."""

import contextlib
import dataclasses
import datetime
import difflib
import importlib
import io
import itertools
import json
import os
import shlex
import signal
import sqlite3
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from experiments import output, presets, provenance, store
from experiments.command import Command
from experiments.commands import COMMANDS, LISTED, TOOLS
from experiments.output import OutputRefused
from experiments.progress import Progress, paper
from experiments.ranks import together

BAD_INPUT, INTERRUPTED = 2, 130
GROUPS = {name.split()[0] for name in COMMANDS if " " in name}  # `ctr toy` lists what begins so


@dataclasses.dataclass(frozen=True)
class Where:
    """Where the answer goes."""

    out: Path | None = None
    """Folder for result.json, pictures and report.html; default out/COMMAND."""
    replace: bool = False
    """Replace the run that lies in the folder."""


def main() -> None:
    """Run the command line; bad input is one line on standard error and exit code 2."""
    arguments = sys.argv[1:]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without Δ must not end a run
    for argument in arguments:
        if any("\udc80" <= letter <= "\udcff" for letter in argument):
            _fail(f"{argument!r} is not UTF-8 text")
    name, rest = _split(arguments)
    if name is None:
        _overview(arguments)
        return
    try:
        if name in TOOLS:
            module = importlib.import_module(TOOLS[name].module)
            sys.exit(module.main(_parse(name, TOOLS[name], module.Config, rest)))
        _ask(name, rest)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # `ctr ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(INTERRUPTED)
    except Exception as error:
        line = _refusal(error)
        if line is None or os.environ.get("CTR_TRACEBACK"):
            raise
        _fail(line)


def _refusal(error: Exception) -> str | None:
    """The line for the user, or None when the exception is a fault of ours."""
    kinds: list[type[Exception]] = [OutputRefused]
    # A class that was never imported cannot have been raised.
    for module, kind in (
        ("mech.errors", "BadInput"),
        ("toy.errors", "Refused"),
        ("experiments.text", "UnreadableText"),
        ("experiments.settings", "BadOption"),
    ):
        if module in sys.modules:
            kinds.append(getattr(sys.modules[module], kind))
    if isinstance(error, tuple(kinds)):
        return str(error)
    if isinstance(error, OSError) and error.errno in output.FULL:
        return f"disk full: {error.strerror}; nothing was kept, free some space"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    if isinstance(error, sqlite3.Error):
        return f"the run store {store.store_path()}: {error}; set CTR_STORE to another file"
    return None


def _split(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The command's name (one word or two) and what follows it."""
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in COMMANDS or name in TOOLS:
            return name, arguments[words:]
    return None, arguments


def _overview(arguments: list[str]) -> None:
    if arguments == ["--version"]:
        found = provenance.versions()
        commit = f", commit {found['commit']}" if found["commit"] else ""
        print(f"ctr {found['catch-tag-release']}{commit}, Python {found['python']}")
        return
    everything = COMMANDS | TOOLS
    asked = [a for a in arguments if not a.startswith("-")]
    if asked and asked not in [[group] for group in GROUPS]:
        given = " ".join(asked[: 2 if asked[0] in GROUPS else 1])
        near = difflib.get_close_matches(given, everything, n=2, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        _fail(f"no command {given!r}{hint} (ctr --help lists all)")
    print("ctr: attention sinks and outlier features, from the theorem to real language models\n")
    for heading, commands in LISTED.items():
        shown = {n: c for n, c in commands.items() if not asked or n.split()[0] == asked[0]}
        if shown:
            print(f"{heading}:")
        for name, command in shown.items():
            print(f"  ctr {name:<21} {command.asks}\n{'':28}{command.example}")
    print("\n  ctr COMMAND --help lists a command's options.")
    if not arguments:
        sys.exit(BAD_INPUT)


def _fail(line: str) -> NoReturn:
    print(f"ctr: error: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def _parse(name: str, command: Command, kind: Any, rest: list[str], default: Any = None) -> Any:
    import tyro  # heavier than the overview needs

    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                kind,
                prog=f"ctr {name}",
                args=rest,
                description=f"{command.asks}\n\nExample: {command.example}",
                config=(tyro.conf.OmitArgPrefixes,),
                **({} if default is None else {"default": default}),
            )
    except SystemExit as left:
        if not left.code:
            raise
        _fail(f"{_unboxed(complaint.getvalue())} (ctr {name} --help lists the options)")


def _unboxed(box: str) -> str:
    """tyro's framed complaint in one line: what it is, and which option was perhaps meant.

    On a terminal that is ASCII the frame is of hyphens, and rules are rows of nothing else.
    """
    rows = [row.strip("│╭╮╰╯─ ") for row in box.splitlines()][1:]
    rows = [row if row.strip("-") else "" for row in rows]
    said = " ".join(itertools.takewhile(bool, itertools.dropwhile(lambda row: not row, rows)))
    near = [rows[i + 1] for i, row in enumerate(rows[:-1]) if row.startswith("Perhaps you meant")]
    return f"{said}; did you mean {near[0]}?" if near else said


def _ask(name: str, rest: list[str]) -> None:
    """Parse, run, and publish one question."""
    command = COMMANDS[name]
    module = importlib.import_module(command.module)
    arguments = dataclasses.make_dataclass(
        "Arguments", [("config", module.Config), ("where", Where)], frozen=True
    )
    given, default = rest, None
    if found := getattr(module, "PRESETS", None):
        config, given = presets.chosen(name, found, rest)
        default = arguments(config, Where())
    parsed = _parse(name, command, arguments, given, default)
    if together.helping(name, parsed.config):  # torchrun's: rank 0 publishes
        module.run(parsed.config, together.quiet())
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: nothing stays
    # A question that can be asked in two ways has two folders, neither in the way of the other.
    default = getattr(module, "folder", lambda config: name.replace(" ", "-"))(parsed.config)
    folder = parsed.where.out or Path("out") / default
    _check_apart(parsed.config, folder)
    with output.output_folder(folder, replace=parsed.where.replace) as writing:
        run, sections = _publish(name, rest, module, parsed.config, writing)
    run["out"] = str(folder.absolute())
    _store(run)
    # Last, because a reader may stop reading: by now the answer is kept.
    try:
        _print(sections)
        print(f"\n{folder / 'report.html'}", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        _fail(f"standard output: {error.strerror}; the answer is in {folder}")


def _check_apart(config: Any, folder: Path) -> None:
    """Refuse what a run would write into its own folder, and a place for a model that is taken."""
    names = {option: f"--{option}" for option in ("save", "certificate", "state", "shards")}
    for option, name in (names | {"into": "OUT"}).items():
        place = getattr(getattr(config, "target", config), option, None)
        if place is not None and place.resolve().is_relative_to(folder.resolve()):
            raise OutputRefused(f"{name} {place} lies in --out {folder}; choose a place beside it")
        if place is not None and option in ("save", "into") and place.exists():
            raise OutputRefused(f"{name} {place} exists; choose another folder or remove it")


def _store(run: dict[str, Any]) -> None:
    """A row for the run; the answer stands without it."""
    try:
        path = store.store_path()
        number = store.add(path, **run)
    except (sqlite3.Error, OSError, OverflowError, RuntimeError) as error:
        print(f"ctr: not stored: {error}; set CTR_STORE to another file", file=sys.stderr)
    else:
        print(f"run {number} in {path}", file=sys.stderr)


def _publish(
    name: str, rest: list[str], module: ModuleType, config: Any, writing: Path
) -> tuple[dict[str, Any], list[Any]]:
    """Answer the question; write result.json, pictures and page; return row and sections."""
    from experiments import provenance, report, serial

    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    clock = time.monotonic()
    result = module.run(config, Progress())
    run = {
        "started": started,
        "command": shlex.join(["ctr", *name.split(), *rest]),
        "question": COMMANDS[name].asks,
        "config": serial.plain(config),
        "seed": getattr(config, "seed", None),
        "inputs": serial.plain(result.inputs),
        "versions": provenance.versions(),
        "wall_seconds": round(time.monotonic() - clock, 1),
        "peak_bytes": provenance.peak_memory(),
        "result": serial.plain(result),
    }
    sections = module.sections(result)
    (writing / output.RESULT).write_text(serial.dumps(run), encoding="utf-8")
    report.write(writing, COMMANDS[name].asks, sections, _facts(run))
    return run, sections


def _facts(run: dict[str, Any]) -> dict[str, str]:
    """The footer of the page: what was run, on what, with what."""
    shown = {k: run[k] for k in ("command", "started", "seed")}
    shown |= {"wall time": f"{run['wall_seconds']:.0f} s"}
    shown |= {"peak memory": f"{run['peak_bytes'] / 2**30:.2f} GiB"}
    shown |= {k: v for k, v in run["inputs"].items() if k != "kind"}
    shown |= {"config": json.dumps(run["config"]), "versions": json.dumps(run["versions"])}
    return {k.replace("_", " "): str(v) for k, v in shown.items() if v not in (None, [], {}, "")}


def _print(sections: list[Any]) -> None:
    """The answer on standard output: text and tables, no pictures."""
    from rich.table import Table

    console = paper()
    for section in sections:
        console.print()
        console.print(section.title, style="bold")
        for paragraph in section.text:
            console.print(paragraph)
        for table in section.tables:
            grid = Table(*table.columns, box=None, pad_edge=False)
            for row in table.rows:
                grid.add_row(*row)
            if table.rows:
                console.print(grid)
            if table.caption:
                console.print(table.caption, style="dim")
