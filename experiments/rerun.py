"""A stored run asked again, from its stored configuration: is every number the same?"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from experiments import provenance, serial, store
from experiments.ledger import record
from experiments.progress import Progress
from experiments.restored import restored
from experiments.settings import BadOption

# What differs from run to run, and is no answer.
_NOT_ASKED = {"platform", "commit"}
# Options for what a run writes or goes on from: asked again, it keeps nothing and begins anew.
_KEPT = {"save", "into", "shards", "state", "certificate"}
# What a run tells of itself beside its answer: how long it took, and what it left on the disk.
_OF_THE_RUN = {"seconds", "prover_seconds", "checker_seconds", "stored"}


@dataclass(frozen=True)
class Config:
    """Which run."""

    run: tyro.conf.Positional[str]
    """A run's folder, its number in `ctr runs`, or an experiment of the ledger."""
    at: tuple[Path, ...] = ()
    """Folders to look in, by name, for texts and tasks that the run read from places that are not
    here; their contents must be the same."""
    fresh: bool = False
    """Compress again what is kept from earlier runs too."""
    shown: int = 10
    """How many numbers that differ are listed."""


class Stored(NamedTuple):
    """What was asked, and what of its answer is kept: the whole result, or its findings."""

    name: str
    config: Any
    inputs: dict[str, Any]
    versions: dict[str, str]
    answer: dict[str, Any]


class Difference(NamedTuple):
    """A place of the answer where two runs are not the same."""

    place: str
    before: Any
    now: Any


def main(config: Config) -> int:
    """Ask again; exit code 0 where every number is the same bit for bit, 1 where one is not."""
    stored = _stored(config.run)
    say = Progress()
    for line in changed(stored.versions):
        say.say(line)
    module = _module(stored.name)
    question = _moved(restored(module.Config, stored.config), config.at)
    with _cache(config.fresh):
        result = serial.plain(module.run(question, say))
    numbers, found = compared(answered(stored.answer), answered(_part(result, stored.answer)))
    inputs = list(differences(_content(stored.inputs), _content(result["inputs"]), "inputs"))
    for one in (inputs + found)[: config.shown]:
        sys.stdout.write(f"{one.place}: {one.before} before, {one.now} now\n")
    more = len(inputs) + len(found) - config.shown
    if more > 0:
        sys.stdout.write(f"… and {more} more\n")
    same = "all the same, bit for bit" if not found else f"{len(found)} not the same"
    sys.stdout.write(f"{stored.name}: {numbers} values, {same}\n")
    return 1 if found or inputs else 0


@contextmanager
def _cache(fresh: bool) -> Iterator[None]:
    """The user's cache, or an empty one that is gone after."""
    if not fresh:
        yield
        return
    before = os.environ.get("CTR_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CTR_CACHE"] = folder
        try:
            yield
        finally:
            os.environ.pop("CTR_CACHE")
            os.environ.update({"CTR_CACHE": before} if before is not None else {})


def compared(before: Any, now: Any) -> tuple[int, list[Difference]]:
    """How many values `before` has, and where `now` has another; NaN equals NaN."""
    return sum(1 for _ in _leaves(before)), list(differences(before, now))


def answered(result: Any) -> Any:
    """What a run says of the question: all but its times and the bytes that it wrote."""
    if isinstance(result, dict):
        return {k: answered(v) for k, v in result.items() if k not in _OF_THE_RUN}
    return [answered(item) for item in result] if isinstance(result, list) else result


def differences(before: Any, now: Any, place: str = "") -> Iterator[Difference]:
    """Every place where the two plain values differ; numbers are compared exactly."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(k for k in now if k not in before)]:
            at = f"{place}.{key}".lstrip(".")
            yield from differences(before.get(key), now.get(key), at)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for i, (a, b) in enumerate(zip(before, now, strict=True)):
            yield from differences(a, b, f"{place}[{i}]")
    elif type(before) is not type(now) or before != now:
        yield Difference(place, before, now)


def changed(versions: dict[str, str]) -> list[str]:
    """A line for everything whose version is not what it was."""
    now = provenance.versions()
    return [
        f"{name}: {was} then, {now.get(name, 'missing')} now; last bits may differ"
        for name, was in versions.items()
        if name not in _NOT_ASKED and now.get(name) != was
    ]


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _stored(given: str) -> Stored:
    """The run that a folder, a number or a name says.

    Raises:
        BadOption: there is none.
    """
    if given.isdigit():
        for row in store.rows(store.store_path()):
            if row.id == int(given):
                name = _name(row.command)
                return Stored(name, row.config, row.inputs, row.versions, _answer(row.result))
        raise BadOption(f"no run {given} in {store.store_path()} (ctr runs lists them)")
    for kept in record.records():
        if given == kept.name:
            findings = serial.plain(kept)["findings"]
            name = f"experiment {kept.experiment}"
            answer = {"findings": findings}
            return Stored(name, kept.config, dict(kept.inputs), dict(kept.versions), answer)
    if not given or not Path(given).exists():
        names = ", ".join(kept.name for kept in record.records())
        raise BadOption(f"RUN {given!r}: give a run's folder or number, or one of {names}")
    run = record.read(Path(given))
    name = _name(run["command"])
    return Stored(name, run["config"], run["inputs"], run["versions"], _answer(run["result"]))


def _name(command: str) -> str:
    from experiments.commands import COMMANDS

    words = command.split()[1:]
    for count in (2, 1):
        if " ".join(words[:count]) in COMMANDS:
            return " ".join(words[:count])
    raise BadOption(f"no command of today's: {command}")


def _module(name: str) -> Any:
    from experiments.commands import COMMANDS

    if name not in COMMANDS:
        raise BadOption(f"no command {name} today")
    return import_module(COMMANDS[name].module)


def _answer(result: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in result.items() if k not in ("config", "inputs", "kind")}


def _part(result: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    return {key: result[key] for key in result if key in like} if like else _answer(result)


def _content(inputs: dict[str, Any]) -> dict[str, Any]:
    """What was read, whatever it is called here."""
    return {k: v for k, v in inputs.items() if k.endswith("sha256") or k in ("bos", "first_ids")}


def _moved(value: Any, folders: Sequence[Path]) -> Any:
    """The configuration with every path that is not there found by its name in the folders.

    Raises:
        BadOption: it is in none of them.
    """
    if isinstance(value, Path) and not value.exists():
        for folder in folders:
            if (folder / value.name).exists():
                return (folder / value.name).resolve()
        raise BadOption(f"{value} is not there: give the folder that has it with --at FOLDER")
    if is_dataclass(value) and not isinstance(value, type):
        moved = {
            f.name: f.default if f.name in _KEPT else _moved(getattr(value, f.name), folders)
            for f in fields(value)
            if f.init
        }
        return replace(value, **moved)
    return value
