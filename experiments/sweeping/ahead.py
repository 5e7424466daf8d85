"""How long a sweep will take, said before it starts and held against a limit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import store
from experiments.planning.forecast import Forecast, Kind, Measured, forecast, kind_of
from experiments.progress import Progress
from experiments.settings import BadOption
from experiments.sweeping.plan import Plan


def measured(path: Path, plan: Plan) -> list[Measured]:
    """The times of stored runs of this experiment at this preset."""
    if not path.exists():
        return []
    with store.connected(path) as connection:
        found: list[tuple[str, float]] = connection.execute(
            "SELECT command, wall_seconds FROM runs WHERE substr(command, 1, ?) = ?",
            (len(plan.asked), plan.asked),
        ).fetchall()
    return [m for c, s in found if (m := Measured(_kind(plan, c), s)).kind == _own(plan)]


def _own(plan: Plan) -> Kind:
    return Kind(plan.name, plan.preset)


def _kind(plan: Plan, command: str) -> Kind:
    """A module of the user's is no command, and its runs are known by the line that asked."""
    return _own(plan) if plan.asked.startswith("ctr sweep ") else kind_of(command)


def of_first(plan: Plan, seconds: Sequence[float]) -> list[Measured]:
    """The times of this sweep's own first runs."""
    return [Measured(_own(plan), one) for one in seconds]


def ends_first(left: Sequence[int]) -> list[int]:
    """The last point, then all others in their order: where a run grows along the grid, the first
    to be measured is the longest."""
    return [left[-1], *left[:-1]]


def told(plan: Plan, left: Sequence[int], found: Sequence[Measured], jobs: int) -> Forecast:
    """The forecast for the runs that are left, `jobs` at a time."""
    return forecast([_own(plan)] * len(left), found, jobs)


def check(said: Forecast, config: Any, progress: Progress) -> None:
    """Say the forecast.

    Raises:
        BadOption: it is longer than --hours, and not --yes.
    """
    if said.seconds is None or said.work is None:
        return
    line = f"{said.runs} runs, forecast {spelled(said.seconds)} ({spelled(said.work)} of work)"
    progress.say(line)
    if said.seconds > 3600 * config.hours and not config.yes:
        raise BadOption(f"{line} is more than --hours {config.hours:g}: pass --yes to ask them all")


def spelled(seconds: float) -> str:
    """In the unit that a reader wants."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
