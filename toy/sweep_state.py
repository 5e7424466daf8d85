"""The folder in which a sweep keeps its state: one plan, one process."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import jax

from toy.errors import Refused
from toy.files import SUFFIX, forget_parts, write_whole
from toy.sweep_plan import Plan

PLAN = "sweep.json"
LOCK = "in-use"


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """The folder is this process' alone; the system lets go of it when the process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise Refused(f"{folder} is a file: --state wants a folder") from error
    with (folder / LOCK).open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(f"another sweep is using {folder}: choose another --state") from error
        yield


def check_plan(plan: Plan, folder: Path) -> None:
    """The plan is that of the folder, or becomes it.

    The version of jax is part of it, because another one may round otherwise.
    Raises `Refused`: another plan, a plan that cannot be read, files of another kind.
    """
    now = json.loads(json.dumps(asdict(plan) | {"jax": jax.__version__}))
    path = folder / PLAN
    if path.exists():
        forget_parts(folder)
        try:
            then = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            then = None
        if not isinstance(then, dict):
            raise Refused(f"{path} is damaged: choose another --state or remove {folder}")
        if then != now:
            name = min(k for k in set(now) | set(then) if now.get(k) != then.get(k))
            raise Refused(
                f"{folder} was begun with {name} {then.get(name)}, not {now.get(name)}: "
                "choose another --state"
            )
        return
    ours = {LOCK, PLAN + SUFFIX}  # a sweep may be killed while it writes its plan
    strangers = sorted({entry.name for entry in folder.iterdir()} - ours)
    if strangers:
        raise Refused(f"{folder} holds {strangers[0]}, which no sweep wrote: choose another")
    write_whole(path, (json.dumps(now, indent=1) + "\n").encode())
