"""Two runs on the same inputs: what differs, unit by unit, with paired intervals."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np
import tyro
from jaxtyping import Float

from experiments import stored
from experiments.intervals import Interval, interval, of_few
from experiments.pictures import forest
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Picture, Section, Table
from experiments.restored import restored
from experiments.settings import BadOption
from experiments.store import Row

SAME = ("text_sha256", "bos", "first_ids")
WINDOWS = ("windows", "context", "sequences", "seq")
"""Of a Config's amounts or sizes: what decides which windows and sequences were read."""
ROWS = 40
"""At most so many rows in the picture."""


@dataclass(frozen=True)
class Config:
    """Compare what two stored runs measured on the same windows, sequences, items or seeds."""

    before: tyro.conf.Positional[str]
    """A run: its number in `ctr runs`, or its folder."""
    after: tyro.conf.Positional[str]
    """Another one; differences are its values less the first one's."""
    only: str = "*"
    """Glob over the names of what is compared."""
    models: bool = False
    """Runs of two models too, where both read the same tokens."""


class Pair(NamedTuple):
    """What both runs have, by unit: both means, and the paired difference (after less before)."""

    name: str
    before: Interval
    after: Interval
    less: Interval


class Verdicts(NamedTuple):
    """One case of one claim in both runs; effects in the finding's unit."""

    claim: str
    case: str
    before: str
    after: str
    verdicts: tuple[str, str]


@dataclass(frozen=True)
class Result:
    """`pairs`: values that both have; `missing`: names that one alone has."""

    config: Config
    inputs: Inputs
    runs: tuple[str, str]
    pairs: list[Pair]
    verdicts: list[Verdicts]
    missing: list[str]


def run(config: Config, progress: Progress) -> Result:
    """Find both runs, check that they read the same, and pair their units.

    Raises:
        BadOption: no such run, runs on different inputs, or nothing that both have.
    """
    before, after = stored.run(config.before), stored.run(config.after)
    if reason := different(before, after, models=config.models):
        raise BadOption(f"runs {config.before} and {config.after}: {reason}")
    mine, other = stored.units(before), stored.units(after)
    shared = [name for name in mine if name in other and fnmatchcase(name, config.only)]
    if not shared:
        raise BadOption(
            f"runs {config.before} and {config.after} have no values of the same name like "
            f"{config.only!r}: {_some(mine)}; {_some(other)}"
        )
    pairs = [pair for name in shared for pair in paired(name, mine[name], other[name])]
    return Result(
        config=config,
        inputs=restored(Inputs, after.inputs) if after.inputs else Inputs(),
        runs=(stored.called(before), stored.called(after)),
        pairs=pairs,
        verdicts=list(_verdicts(before, after)),
        missing=sorted(set(mine) ^ set(other)),
    )


def different(before: Row, after: Row, *, models: bool = False) -> str:
    """Why the runs cannot be compared in pairs, in words; empty where they can."""
    for name in (*SAME, *(() if models else ("model_sha256",))):
        a, b = (row.inputs.get(name) for row in (before, after))
        if a != b:
            which = name.removesuffix("_sha256").replace("_", " ")
            hint = "; --models compares two models" if name == "model_sha256" else ""
            return f"different {which}: {_told(a)} and {_told(b)}{hint}"
    a, b = (_windows(row.config) for row in (before, after))
    for name in WINDOWS:
        if a.get(name) != b.get(name):
            return f"different {name}: {_told(a.get(name))} and {_told(b.get(name))}"
    mine, other = stored.units(before), stored.units(after)
    for name in mine:
        if name in other and len(mine[name]) != len(other[name]):
            return f"{name}: {len(mine[name])} and {len(other[name])} values"
    return ""


def paired(
    name: str, before: Float[np.ndarray, " unit"], after: Float[np.ndarray, " unit"]
) -> Iterator[Pair]:
    """The paired difference over the units that both have a number for; nothing below two."""
    some = np.isfinite(before) & np.isfinite(after)
    a, b = before[some], after[some]
    if len(a) > 1:
        yield Pair(name, interval(a), interval(b), interval(b - a))


def clear(pair: Pair) -> bool:
    """Whether the interval of the difference is without 0."""
    return pair.less.low > 0 or pair.less.high < 0


def _windows(config: dict[str, Any]) -> dict[str, Any]:
    return next((config[k] for k in ("amounts", "sizes") if isinstance(config.get(k), dict)), {})


def _verdicts(before: Row, after: Row) -> Iterator[Verdicts]:
    theirs = {(f.claim, f.case): f for f in stored.findings(after)}
    for mine in stored.findings(before):
        if other := theirs.get((mine.claim, mine.case)):
            a, b = (f"{f.effect} {f.unit}" if f.effect else "–" for f in (mine, other))
            yield Verdicts(mine.claim, mine.case, a, b, (mine.verdict, other.verdict))


def _told(value: object) -> str:
    return "none" if value in (None, [], "") else str(value)[:40]


def _some(found: dict[str, Any]) -> str:
    names = list(found)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "") or "none"


def sections(result: Result) -> list[Section]:
    """Differences as a table and a picture, verdicts side by side, and what one run alone has."""
    pairs, count = result.pairs, sum(map(clear, result.pairs))
    text = [
        f"Before: {result.runs[0]}.",
        f"After: {result.runs[1]}.",
        f"{count} of {len(pairs)} differences have an interval without 0; of as many without any "
        f"difference about {0.05 * len(pairs):.1f} would.",
    ]
    if result.missing:
        text.append(f"In one run alone: {', '.join(result.missing)}.")
    rows = [(p.name, *map(str, (p.before, p.after, p.less)), str(p.less.n)) for p in pairs]
    few = of_few(min((pair.less.n for pair in pairs), default=10))
    caption = f"Means with 95% intervals; differences are paired, unit by unit.{few}"
    columns = ("values", "before", "after", "after less before", "n")
    found = [Section("Two runs", text, [Table(columns, rows, caption)], _pictures(pairs))]
    if result.verdicts:
        lines = [(v.claim, v.case, v.before, v.after, *v.verdicts) for v in result.verdicts]
        names = ("claim", "case", "before", "after", "verdict before", "verdict after")
        found.append(Section("Claims in both", [], [Table(names, lines)]))
    return found


def _pictures(pairs: list[Pair]) -> list[Picture]:
    """Differences in percent of the mean before, so that nats and counts are on one axis."""
    drawn = [pair for pair in pairs if pair.before.mean][:ROWS]
    if not drawn:
        return []
    share = [[100 * value / abs(p.before.mean) for value in p.less[:3]] for p in drawn]
    mean, low, high = np.array(share).T
    names = [pair.name for pair in drawn]
    figure = forest(names, mean, low, high, "difference, % of the mean before", "After less before")
    caption = f"95% intervals of paired differences; {len(drawn)} of {len(pairs)}."
    return [Picture("differences", figure, caption)]
