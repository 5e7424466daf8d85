"""How long many runs will take, from the times of runs like them."""

import shlex
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from experiments import presets
from experiments.store import Row


class Kind(NamedTuple):
    """What runs are alike by: the question and the size at which it is asked."""

    experiment: str
    preset: str = presets.DEFAULT


class Measured(NamedTuple):
    """The wall time of one run."""

    kind: Kind
    seconds: float


class Forecast(NamedTuple):
    """seconds: until the last run ends. work: of all runs, one after the other.

    known: of how many runs a like one was measured; the others are taken for the median of
    those. Where none is known, `seconds` and `work` are None.
    """

    seconds: float | None
    work: float | None
    known: int
    runs: int


def forecast(asked: Sequence[Kind], measured: Iterable[Measured], jobs: int = 1) -> Forecast:
    """max(Σ t / jobs, max t), t the median of the measured seconds of a run's kind.

    That is what a schedule takes whose last runs end together, and the least that any takes.
    """
    seconds = defaultdict(list)
    for one in measured:
        seconds[one.kind].append(one.seconds)
    medians = {kind: statistics.median(found) for kind, found in seconds.items()}
    told = [medians[kind] for kind in asked if kind in medians]
    if not told:
        return Forecast(None, None, 0, len(asked))
    times = [*told, *[statistics.median(told)] * (len(asked) - len(told))]
    work = sum(times)
    return Forecast(max(work / max(jobs, 1), max(times)), work, len(told), len(asked))


def of_rows(rows: Iterable[Row]) -> list[Measured]:
    """The times of stored runs, by the command that asked for each."""
    return [Measured(kind_of(row.command), row.wall_seconds) for row in rows]


def kind_of(command: str) -> Kind:
    """Of a stored command line: `ctr experiment all --preset paper` is (experiment all, paper)."""
    words = shlex.split(command)[1:]
    name = []
    for word in words[:2]:
        if word.startswith("-"):
            break
        name.append(word)
    if name and name[0] not in ("experiment", "toy"):  # the groups whose names are two words
        name = name[:1]
    preset = presets.DEFAULT
    for place, word in enumerate(words):
        if word == "--preset" and place + 1 < len(words):
            preset = words[place + 1]
        elif word.startswith("--preset="):
            preset = word.partition("=")[2]
    return Kind(" ".join(name), preset)
