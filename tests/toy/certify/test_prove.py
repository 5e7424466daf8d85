"""What the prover proves, what it refutes, and what it honestly leaves open."""

import itertools
import math
from fractions import Fraction

import pytest

from tests.toy.certify.cases import statement
from toy.certify import compare, prove
from toy.certify.boxes import Statement, halves, locate
from toy.certify.intervals import Interval, precision
from toy.certify.prove import NotProved, Refuted
from toy.errors import NoMagnitude, NonPositiveQuery, NoSegment, Refused, ScaleTooSmall

ROSTER = {
    "the middle": statement(),
    "a wide cell": statement(width="0.3"),
    "[SEP] first": statement(t=1, fraction="0.7"),
    "two numbers after [SEP]": statement(t=4),
    "one number after [SEP]": statement(t=5, d="0.5", width="0.01"),
    "the shortest": statement(T=2, t=1, d="0.5"),
    "b = 0": statement(b="0", width="0.02"),
    "b < 0": statement(T=8, b="-0.7", width="0.02"),
    "just above the least s": statement(s="5", b="3", width="0.01"),
    "a small X": statement(X="0.01"),
    "a large X": statement(X="2", s="16"),
    "a large s": statement(s="100000", b="0.1"),
    "long": statement(T=24, t=9, s="18"),
    "sharper": statement(fraction="0.7"),
}


@pytest.mark.parametrize("name", ROSTER)
def test_the_roster_is_proved(name):
    whole = ROSTER[name]
    proof = prove.prove(whole, boxes=2000)
    assert proof.statement == whole
    assert max(leaf.ratio for leaf in proof.leaves) <= whole.fraction
    parts = [locate(whole.box, leaf.path) for leaf in proof.leaves]
    volume = sum(measure(part, whole.box) for part in parts)
    assert volume == 1
    for part, leaf in zip(parts, proof.leaves, strict=True):
        with precision():
            assert compare.ratio(whole.T, whole.t, whole.X, part).hi <= float(leaf.ratio) * (
                1 + 1e-12
            )


def measure(part, whole):
    """The part's share of the whole, in exact numbers; sides of no length do not count."""
    sides = [axis for axis, (low, high) in whole.items() if low < high]
    lengths = [
        (part[axis][1] - part[axis][0]) / (whole[axis][1] - whole[axis][0]) for axis in sides
    ]
    return math.prod(lengths)


def test_halves_share_a_face_and_nothing_else():
    box = statement().box
    lower, upper = halves(box, "x5")
    assert lower["x5"][1] == upper["x5"][0] == 0
    assert locate(box, ["x5+", "s-", "x5-"])["x5"] == (0, Fraction(1, 2))


@pytest.mark.parametrize("fraction", ["0.45", "0.05"])
def test_a_statement_that_is_too_sharp_is_refuted_with_a_point(fraction):
    """The worst input found is 0.49 of the bound: any less is false."""
    with pytest.raises(Refuted, match=r"^refuted: .* at x1 = .*, d = 1$"):
        prove.prove(statement(fraction=fraction))


def test_what_is_between_the_worst_input_and_the_enclosure_is_left_open():
    """True or false, 0.4905 is just above what was found, and too sharp for 20 boxes."""
    with pytest.raises(NotProved, match=r"after 19 boxes 10 are .* x1 in \[.* raise --boxes"):
        prove.prove(statement(fraction="0.4905"), boxes=20)


def test_the_time_is_kept_too():
    with pytest.raises(NotProved):
        prove.prove(statement(fraction="0.4905"), seconds=0.5)


def test_a_prover_that_halves_what_it_finds_meets_its_counterexample(monkeypatch):
    """The search for a point is not fooled by a wrong enclosure of boxes."""
    honest = compare.ratio
    monkeypatch.setattr(
        compare, "ratio", lambda *case: Interval(honest(*case).lo, honest(*case).hi / 2)
    )
    with pytest.raises(Refuted):
        prove.prove(statement(fraction="0.45"))


def test_a_poisoned_box_is_never_a_leaf(monkeypatch):
    """NaN answers no to every comparison: neither order of words may take it for a proof."""
    from toy.certify.intervals import Poisoned

    def poisoned(*case):
        raise Poisoned("no finite enclosure")

    monkeypatch.setattr(compare, "ratio", poisoned)
    with pytest.raises(NotProved, match="at most nothing"):
        prove.prove(statement(), boxes=20)


def test_the_budget_counts_every_box():
    proof = prove.prove(ROSTER["sharper"])
    assert proof.boxes == 2 * len(proof.leaves) - 1
    with pytest.raises(NotProved):
        prove.prove(ROSTER["sharper"], boxes=proof.boxes - 2)


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"T": 1, "t": 1}, NoSegment),
        ({"t": 6}, NoSegment),
        ({"t": 0}, NoSegment),
        ({"X": Fraction(0)}, NoMagnitude),
        ({"X": Fraction(-1)}, NoMagnitude),
        ({"s": (Fraction(1), Fraction(2))}, ScaleTooSmall),
        ({"s": (Fraction(3), Fraction(2))}, Refused),
        ({"d": (Fraction(0), Fraction(1))}, NonPositiveQuery),
        ({"fraction": Fraction(0)}, Refused),
        ({"d": (Fraction(1, 50), Fraction(1, 40))}, NonPositiveQuery),
        ({"b": (Fraction(-12), Fraction(0))}, NonPositiveQuery),
    ],
)
def test_what_theorem_b_does_not_cover_is_refused_by_name(changed, kind):
    fields = {name: getattr(statement(), name) for name in Statement.__dataclass_fields__}
    with pytest.raises(kind):
        prove.prove(Statement(**(fields | changed)))


@pytest.mark.parametrize("budget", [{"boxes": 0}, {"seconds": 0.0}, {"seconds": math.nan}])
def test_a_budget_of_nothing_is_refused(budget):
    with pytest.raises(Refused):
        prove.prove(statement(), **budget)


def test_what_a_leaf_allows_is_never_below_what_is_found():
    """A wrong certificate once had an upper bound below the value at a point."""
    whole = statement(width="0.2", fraction="0.9")
    proof = prove.prove(whole)
    found = prove.suspects(whole)
    for point, leaf in itertools.product(found, proof.leaves):
        part = locate(whole.box, leaf.path)
        if all(low <= point[axis] <= high for axis, (low, high) in part.items()):
            assert prove.at_least(whole, point) <= leaf.ratio
    assert max(prove.at_least(whole, point) for point in found) > 0.4
