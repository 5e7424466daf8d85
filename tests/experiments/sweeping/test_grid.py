"""A grid as it is written: which points it has, and what is refused with one line."""

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from experiments import serial
from experiments.restored import restored
from experiments.settings import BadOption
from experiments.sweeping import grid


@dataclass(frozen=True)
class Inner:
    share: float = 0.5
    bits: int | None = None
    file: Path | None = None


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    other: Inner = field(default_factory=Inner)
    seed: int = 0
    names: tuple[str, ...] = ("a", "b")
    shares: tuple[float, ...] = (0.5,)
    word: str = ""
    fast: bool = False


BASE = serial.plain(Outer())


def points(text: str) -> list[dict]:
    return list(grid.points(grid.axes(Outer, BASE, grid.written(text))))


def test_the_product_in_the_order_of_the_axes_the_last_fastest():
    found = points("inner.share=0.5,1 seed=0..2")
    wanted = itertools.product((0.5, 1.0), (0, 1, 2))
    assert found == [{"inner.share": a, "seed": b} for a, b in wanted]


@pytest.mark.parametrize(
    ("text", "place", "values"),
    [
        ("seed=3..9..3", "seed", [3, 6, 9]),
        ("seed=-2..-1", "seed", [-2, -1]),
        ("inner.share=1,2", "inner.share", [1.0, 2.0]),
        ("other.bits=4,none", "other.bits", [4, None]),
        ("names=a,b+c", "names", [["a"], ["b", "c"]]),
        ("names=1+2", "names", [["1", "2"]]),
        ("shares=1,0.5+2", "shares", [[1.0], [0.5, 2.0]]),
        ("word=7,none,x", "word", ["7", "none", "x"]),
        ("word='a b',c", "word", ["a b", "c"]),
        ("fast=true,false", "fast", [True, False]),
        ("inner.file=a/b.txt", "inner.file", ["a/b.txt"]),
    ],
)
def test_values_have_the_type_of_their_option(text, place, values):
    found = [point[place] for point in points(text)]
    assert [json.dumps(v) for v in found] == [json.dumps(v) for v in values]
    for value in values:
        restored(Outer, grid.placed(BASE, {place: value}))


@dataclass(frozen=True)
class Choosy:
    inner: Inner = field(default_factory=Inner)
    seed: int = 0

    def __post_init__(self):
        if self.seed == 3 or self.inner.bits == 3:
            raise ValueError("three")


@pytest.mark.parametrize("text", ["seed=1..3", "bits=2,3"])
def test_a_value_that_the_whole_config_refuses_is_none(text):
    base = serial.plain(Choosy())
    with pytest.raises(BadOption, match=r"=3: not a value of that option"):
        grid.axes(Choosy, base, grid.written(text))


def test_a_config_is_read_once_an_axis_and_not_once_a_value(monkeypatch):
    """100,000 values took 20 s where each was put into a copy of the whole Config."""
    read = []
    monkeypatch.setattr(grid, "restored", lambda kind, v: read.append(kind) or restored(kind, v))
    (axis,) = grid.axes(Outer, BASE, grid.written("seed=0..999"))
    assert axis.values == list(range(1000))
    assert read.count(Outer) == 1


def test_the_base_stays_as_it_was():
    before = json.dumps(BASE)
    assert grid.placed(BASE, {"inner.share": 0.9})["inner"]["share"] == 0.9
    assert json.dumps(BASE) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("seed", "write OPTION=VALUE"),
        ("seed=", "write OPTION=VALUE"),
        ("seed=0 seed=1", "given twice"),
        ("seed=1,1", "a value is given twice"),
        ("seed=0,0..3", "a value is given twice"),
        ("seed=9..0", "a range goes up"),
        ("seed=0..99999999", "a range goes up"),
        ("seed=0.5", "not a value"),
        ("sede=1", "did you mean seed"),
        ("share=0.1", "inner.share, other.share"),
        ("seed='1", "No closing quotation"),
        ("inner=1", "no such option"),
    ],
)
def test_what_is_no_grid_is_refused(text, words):
    with pytest.raises(BadOption, match=words):
        points(text)


def test_too_many_points_are_refused_before_they_are_made():
    with pytest.raises(BadOption, match="points; give at most"):
        points("seed=0..1999 inner.bits=0..999")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("g.toml", '[grid]\nseed = [1, 2]\nword = "x"\nshares = [[1, 0.5]]\n'),
        ("g.json", '{"grid": [{"seed": [1, 2], "word": "x", "shares": [[1, 0.5]]}]}'),
    ],
)
def test_a_file_says_the_same(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    (given,) = grid.read(tmp_path / name)
    found = list(grid.points(grid.axes(Outer, BASE, given)))
    assert found == points("seed=1,2 word=x shares=1+0.5")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("g.toml", "[grid"),
        ("g.toml", "seed = [1]"),
        ("g.toml", "[grid]\nseed = []\n"),
        ("g.json", "[1]"),
        ("g.json", '{"grid": []}'),
        ("g.json", '{"grid": [3]}'),
        ("g.json", "[" * 100_000),
        ("g.yaml", "grid:\n"),
    ],
)
def test_a_file_that_is_no_grid_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadOption, match="--grid-file"):
        grid.read(tmp_path / name)
