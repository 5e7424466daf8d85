"""The jobs of a sweep: every point of its grids as something that can be asked anywhere."""

import importlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from experiments import presets, serial
from experiments.settings import BadOption
from experiments.sweeping import grid, keys
from experiments.sweeping.keys import Job


class Plan(NamedTuple):
    """What a sweep asks: the experiment, its axes, and by point a job.

    asked: the command that every run has in common; varied: the axes of more than one value.
    """

    name: str
    preset: str
    asked: str
    axes: Sequence[str]
    varied: Sequence[str]
    points: Sequence[dict[str, Any]]
    jobs: Sequence[Job]

    def told(self, index: int) -> str:
        """The point in a few words: of the axes that have more than one value."""
        return told({p: self.points[index][p] for p in self.varied}) or "the only point"


def planned(name: str, preset: str, grids: Sequence[str], file: Path | None, threads: int) -> Plan:
    """Every point once, in the order of the grids.

    Raises:
        BadOption: no such experiment, preset or option, or a value that an option cannot take.
    """
    called, module, question = _module(name)
    base, size = _base(called, module, preset)
    given = [grid.written(text) for text in grids] + (grid.read(file) if file else [])
    if not given:
        raise BadOption('--grid is missing: as --grid "sparsity=0.5,0.6 seed=0..9"')
    asked = f"ctr {called}" if called != name or "." not in name else f"ctr sweep {name}"
    asked += f" --preset {size}" if size else ""
    places, points, jobs, seen = {}, [], [], set()
    for one in given:
        axes = grid.axes(module.Config, base, one)
        places |= dict.fromkeys(axis.place for axis in axes)
        for point in grid.points(axes):
            config = keys.settled(module.Config, grid.placed(base, point))
            key = keys.key(module, config, threads)
            job = Job(module.__name__, _line(asked, point), question, key["config"], key)
            if job.hash not in seen:  # two grids may meet
                seen.add(job.hash)
                points.append(point)
                jobs.append(job)
    # Of a grid without an axis that another has, the option is what it is anyway.
    points = [{p: point.get(p, grid.at(base, p)) for p in places} for point in points]
    varied = [p for p in places if any(point[p] != points[0][p] for point in points)]
    return Plan(called, size or presets.DEFAULT, asked, list(places), varied, points, jobs)


def told(point: Mapping[str, Any]) -> str:
    """The point as a grid of one: `sparsity=0.5 seed=3`."""
    said = {p.rpartition(".")[2]: v for p, v in point.items()}
    return " ".join(f"{k}={'+'.join(map(str, v)) if isinstance(v, list) else v}"
                    for k, v in said.items())  # fmt: skip


def _module(name: str) -> tuple[str, ModuleType, str]:
    """The command that `name` says, with or without its "experiment", or a module of the user's."""
    from experiments.commands import COMMANDS

    for called in (name, f"experiment {name}"):
        if called in COMMANDS:
            return called, importlib.import_module(COMMANDS[called].module), COMMANDS[called].asks
    if "." in name:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise BadOption(f"{name}: no module that Python finds: {error}") from error
        if not (hasattr(module, "Config") and hasattr(module, "run")):
            raise BadOption(f"{name}: a module to sweep has Config and run(config, progress)")
        return name, module, (module.__doc__ or name).strip().splitlines()[0]
    import difflib

    every = [known.removeprefix("experiment ") for known in COMMANDS]
    near = difflib.get_close_matches(name, every, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else " (ctr --help lists all)"
    raise BadOption(f"EXPERIMENT {name!r}: no such experiment{hint}")


def _base(called: str, module: ModuleType, preset: str) -> tuple[dict[str, Any], str]:
    """The stored Config whose options the grid changes, and the preset that it is."""
    found = getattr(module, "PRESETS", None)
    if found is None:
        if preset:
            raise BadOption(f"--preset {preset}: {called} has none; give options in --grid")
        try:
            return serial.plain(module.Config()), ""
        except TypeError as error:
            raise BadOption(f"{called}: its Config has no default: {error}") from error
    config, _ = presets.chosen(called, found, ["--preset", preset or presets.DEFAULT])
    return serial.plain(config), preset or presets.DEFAULT


def _line(asked: str, point: dict[str, Any]) -> str:
    """The command that asks one point by itself, for readers and `ctr rerun`."""
    if asked.startswith("ctr sweep "):
        return f"{asked} --grid {shlex.quote(told(point))}"
    words = []
    for place, value in point.items():
        name = place.rpartition(".")[2]
        option = name.replace("_", "-")
        if name == "model":
            words.insert(0, str(value))
        elif isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", *map(str, value if isinstance(value, list) else [value])]
    return " ".join([asked, *map(shlex.quote, words)])
