"""A grid: the product of axes, an axis being an option of an experiment and the values it takes."""

import dataclasses
import difflib
import itertools
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from experiments.restored import restored
from experiments.settings import BadOption

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?")
_MOST = 1_000_000  # points; a typing error in a range must not fill the memory


class Axis(NamedTuple):
    """An option by its place in the Config, and its values in JSON's types."""

    place: str
    values: Sequence[Any]

    @property
    def name(self) -> str:
        """As it is said: the last word of the place."""
        return self.place.rpartition(".")[2]


Given = Mapping[str, Sequence[Any]]
"""An axis' name and its values, as they were written: text, or JSON's types from a file."""


def written(text: str) -> Given:
    """`sparsity=0.5,0.6 seed=0..9`: a value after a value, or whole numbers from..to(..step).

    Parts of one value that is itself a list are joined by +: `methods=wanda+oats,oats`.

    Raises:
        BadOption: it is not of that form.
    """
    found: dict[str, list[Any]] = {}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadOption(f"--grid {text!r}: {error}") from error
    for word in words:
        name, equals, values = word.partition("=")
        if not name or not equals or not values:
            raise BadOption(f'--grid {word!r}: write OPTION=VALUE,VALUE or "seed=0..9"')
        if name in found:
            raise BadOption(f"--grid {name} is given twice in one grid")
        found[name] = [v for part in values.split(",") for v in _spread(word, part)]
    if not found:
        raise BadOption('--grid is empty: write OPTION=VALUE,VALUE, as "sparsity=0.5,0.6"')
    return found


def _spread(word: str, part: str) -> list[Any]:
    if (match := _RANGE.fullmatch(part)) is None:
        return [part]
    low, high, step = int(match[1]), int(match[2]), int(match[3] or 1)
    if high < low or not step or (high - low) // step >= _MOST:
        raise BadOption(f"--grid {word}: a range goes up, from..to or from..to..step")
    return [str(n) for n in range(low, high + 1, step)]


def read(file: Path) -> list[Given]:
    """The grids of a .toml or .json file: a table `grid` of option = value(s), or a list of such.

    Raises:
        BadOption: it is none. OSError: it cannot be read.
    """
    import tomllib

    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        stored = {".toml": tomllib.loads, ".json": json.loads}[file.suffix](text)
        grids = stored["grid"]
        grids = grids if isinstance(grids, list) else [grids]
        found: list[Given] = [
            {k: v if isinstance(v, list) else [v] for k, v in g.items()} for g in grids
        ]
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise BadOption(
            f"--grid-file {file}: want .toml or .json with grid = a table of OPTION = [VALUES]"
        ) from error
    if not found or not all(g and all(g.values()) for g in found):
        raise BadOption(f"--grid-file {file}: a grid or an option in it has no values")
    return found


def axes(kind: Any, base: dict[str, Any], given: Given) -> list[Axis]:
    """The axes of a grid over Configs of `kind`, whose other options are those of `base`.

    Raises:
        BadOption: no such option, two of that name, a value that it cannot take, one twice.
    """
    found = [
        Axis(option.place, [option.typed(value) for value in values])
        for name, values in given.items()
        for option in [_Option(kind, base, _place(base, name))]
    ]
    for axis in found:
        if len({json.dumps(value) for value in axis.values}) < len(axis.values):
            raise BadOption(f"--grid {axis.name}: a value is given twice")
    if len({axis.place for axis in found}) < len(found):
        raise BadOption("--grid: an option is given twice")
    return found


def points(grid: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """The product, the last axis fastest; by place, in the order of the axes.

    Raises:
        BadOption: more than a million points.
    """
    count = 1
    for axis in grid:
        count *= len(axis.values)
    if count > _MOST:
        raise BadOption(f"--grid has {count} points; give at most {_MOST}")
    for values in itertools.product(*(axis.values for axis in grid)):
        yield {axis.place: value for axis, value in zip(grid, values, strict=True)}


def placed(base: dict[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """The stored form of a Config, with the point's values at their places; `base` stays.

    What holds no place is shared with it, not copied: a grid has a million points at most.
    """
    config = dict(base)
    for place, value in point.items():
        *above, last = place.split(".")
        inside = config
        for name in above:
            inside[name] = dict(inside[name])
            inside = inside[name]
        inside[last] = value
    return config


def at(base: Mapping[str, Any], place: str) -> Any:
    """The value at a place of a stored Config."""
    value: Any = base
    for name in place.split("."):
        value = value[name]
    return value


def _leaves(base: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in base.items():
        if isinstance(value, dict) and "kind" in value:
            yield from _leaves(value, f"{above}{name}.")
        elif name != "kind":
            yield above + name


def _place(base: dict[str, Any], name: str) -> str:
    wanted, every = name.replace("-", "_"), list(_leaves(base))
    found = [p for p in every if p == wanted] or [p for p in every if p.endswith(f".{wanted}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadOption(f"--grid {name}: say which of {', '.join(found)}")
    short = [p.rpartition(".")[2] for p in every]
    near = difflib.get_close_matches(wanted, short, n=2, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(short)}"
    raise BadOption(f"--grid {name}: no such option; {hint}")


class _Option:
    """The field at a place of a Config, looked up once: every value of an axis is asked of it."""

    def __init__(self, kind: Any, base: dict[str, Any], place: str) -> None:
        *above, self.last = place.split(".")
        self.place, self.now = place, at(base, place)
        config = restored(kind, base)
        self.chain = list(itertools.accumulate(above, getattr, initial=config))
        self.above = above
        hints = get_type_hints(type(self.chain[-1]), include_extras=True)
        self.kind = hints[self.last]

    def typed(self, value: Any) -> Any:
        """The value in the type that the option has: the first reading that the Config takes."""
        for candidate in _readings(value):
            try:
                self._placed(restored(self.kind, candidate))
            except (BadOption, TypeError, ValueError, KeyError):
                continue
            return candidate
        now = json.dumps(self.now)
        raise BadOption(f"--grid {self.place}={value}: not a value of that option, as {now} is")

    def _placed(self, value: Any) -> Any:
        """The Config with it, which may refuse it (`__post_init__`)."""
        names = [*self.above, self.last]
        for owner, name in zip(reversed(self.chain), reversed(names), strict=True):
            value = dataclasses.replace(owner, **{name: value})
        return value


def _readings(value: Any) -> Iterator[Any]:
    if not isinstance(value, str):  # from a file; 1 may be meant for a float, which is 1.0
        if isinstance(value, int) and not isinstance(value, bool):
            yield float(value)
        if isinstance(value, list) and all(type(item) in (int, float) for item in value):
            yield [float(item) for item in value]
        yield value
        return
    yield from _of_text(value)
    parts = value.split("+")
    for one in zip(*(_padded(list(_of_text(part))) for part in parts), strict=True):
        yield list(one)


def _padded(readings: list[Any]) -> list[Any]:
    """float, JSON, text: three readings of a word, its last where it has fewer."""
    return [readings[0]] * (3 - len(readings)) + readings


def _of_text(text: str) -> Iterator[Any]:
    try:
        number = json.loads(text, parse_constant=str)
    except ValueError:
        number = {"None": None, "none": None, "True": True, "False": False}.get(text, text)
    if isinstance(number, int) and not isinstance(number, bool):
        yield float(number)
    if number is not text and not isinstance(number, list | dict):
        yield number
    yield text
