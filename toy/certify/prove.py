"""Branch and bound: halve boxes until |f - m| <= fraction * B is proved on each."""

import heapq
import math
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple

from toy.certify import compare, enclose
from toy.certify.boxes import PARAMETERS, Box, Statement, halves, middle
from toy.certify.intervals import Interval, Poisoned, precision, shown
from toy.errors import NonPositiveQuery, Refused

PARTS = 10**8
"""Claims are multiples of 1 / PARTS."""
PULL = 4.0
SLACK, ROUNDING = Fraction(1, 10**9), Fraction(1, 10**30)
"""A leaf claims this much more than was proved, relatively and below the fraction, so that other
arithmetic of 40 digits can confirm it."""


class NotProved(Refused):
    """The statement is neither proved nor refuted within the budget."""


class Refuted(Refused):
    """The statement is false: the message holds a point where it fails."""


class Leaf(NamedTuple):
    """A part of the box, by its path of halvings, and what |f - m| / B does not exceed there."""

    path: tuple[str, ...]
    ratio: Fraction


class Proof(NamedTuple):
    """The leaves fill the box of the statement, and no `ratio` exceeds the fraction."""

    statement: Statement
    leaves: tuple[Leaf, ...]
    boxes: int
    """Boxes on which |f - m| / B was enclosed, but for those that only chose an axis."""


class _Node(NamedTuple):
    """Ordered by how far it is from proved, the worst first."""

    merit: float
    number: int
    path: tuple[str, ...]
    box: Box
    claim: Fraction | None


def prove(
    statement: Statement,
    *,
    boxes: int = 100_000,
    seconds: float = 600.0,
    advance: Callable[[int, int], object] = lambda done, left: None,
) -> Proof:
    """Leaves on each of which |f - m| <= fraction * B, and that together fill the box.

    `advance` is told the leaves proved and the boxes that wait. Raises `NonPositiveQuery` (q_lo > 0
    fails in the cell), `Refuted` (a point inside breaks the statement, proved with intervals),
    `NotProved` (the budget of boxes or seconds is spent; names the worst box that was left).
    """
    if not seconds > 0 or boxes < 1:
        raise Refused(f"boxes = {boxes}, seconds = {seconds:g}: give a positive budget")
    with precision():
        _check_query(statement)
        refute(statement, suspects(statement))
        return _search(statement, boxes, time.monotonic() + seconds, advance)


def _search(
    statement: Statement, boxes: int, until: float, advance: Callable[[int, int], object]
) -> Proof:
    seen = 1
    waiting = [_node(statement, (), statement.box, seen)]
    proved: list[Leaf] = []
    while waiting:
        advance(len(proved), len(waiting))
        node = heapq.heappop(waiting)
        if node.claim is not None:
            proved.append(Leaf(node.path, node.claim))
            continue
        if seen + 2 > boxes or time.monotonic() > until:
            refute(statement, [{axis: middle(ends) for axis, ends in node.box.items()}])
            raise NotProved(_where(node, statement, seen, len(waiting) + 1))
        axis = _longest(statement, node.box)
        for sign, half in zip("-+", halves(node.box, axis), strict=True):
            path = (*node.path, axis + sign)
            seen += 1
            heapq.heappush(waiting, _node(statement, path, half, seen))
    return Proof(statement, tuple(sorted(proved)), seen)


def _node(statement: Statement, path: tuple[str, ...], box: Box, number: int) -> _Node:
    """The node of a box; where no ratio can be enclosed, it is infinitely far from proved."""
    found, fraction = _ratio(statement, box), statement.fraction
    if math.isinf(found):
        return _Node(-math.inf, number, path, box, None)
    claim = min(fraction, Fraction(math.ceil(found * (1 + SLACK) * PARTS), PARTS))
    return _Node(-float(found), number, path, box, claim if found <= fraction - ROUNDING else None)


def _ratio(statement: Statement, box: Box) -> Fraction | float:
    """A number that |f - m| / B does not exceed on the box; infinity where none is found."""
    try:
        found = compare.ratio(statement.T, statement.t, statement.X, box).hi
    except Poisoned:
        return math.inf
    mantissa, exponent = (int(part) for part in found.man_exp())
    return mantissa * Fraction(2) ** exponent


def _longest(statement: Statement, box: Box) -> str:
    """The axis to halve: the longest.

    A number's length is its share of [-X, X]; before [SEP], where it only crowds a row or leaks, a
    quarter of that. A parameter's is what the ratio would lose, relatively, if the parameter were
    fixed at its middle, times `PULL`.
    """
    whole = _ratio(statement, box)

    def length(axis: str) -> float:
        low, high = box[axis]
        if axis not in PARAMETERS:
            share = float((high - low) / (2 * statement.X))
            return share if int(axis[1:]) > statement.t else share / 4
        if low == high:
            return 0.0
        fixed = _ratio(statement, {**box, axis: (middle((low, high)), middle((low, high)))})
        if math.isinf(whole):
            return float((high - low) / high) if math.isinf(fixed) else math.inf
        return PULL * (1 - float(fixed / whole))

    return max(sorted(box), key=length)


def _check_query(statement: Statement) -> None:
    """q_lo grows with s and d and falls with |b|: its least value is at one corner of the cell."""
    b = max(statement.b, key=abs)
    corner = {"s": (statement.s[0],) * 2, "b": (b, b), "d": (statement.d[0],) * 2}
    try:
        compare.bound(statement.T, statement.t, statement.X, corner)
    except Poisoned:
        s, d = float(statement.s[0]), float(statement.d[0])
        raise NonPositiveQuery(
            f"s_tag = {s:.6g}, b = {float(b):.6g}, d = {d:.6g} in the cell cannot hold the query "
            f"positive for X = {float(statement.X):.6g}, T = {statement.T}: raise s or d"
        ) from None


def suspects(statement: Statement) -> list[Mapping[str, Fraction]]:
    """The worst inputs that an adversary finds in the middle of the cell."""
    from toy.adversary import worst_inputs

    centre = {p: middle(statement.box[p]) for p in PARAMETERS}
    s, b, d = (float(centre[p]) for p in PARAMETERS)
    found = worst_inputs(statement.T, statement.t, float(statement.X), s, b, d)
    X = statement.X
    return [
        {f"x{i}": min(X, max(-X, Fraction(v))) for i, v in enumerate(x.tolist(), 1)} | centre
        for x in found
    ]


def refute(statement: Statement, points: list[Mapping[str, Fraction]]) -> None:
    """Raises `Refuted` if one of the points of the box provably has |f - m| > fraction * B."""
    for point in points:
        error, bound = at_point(statement, point)
        allowed = bound * statement.fraction
        if error.lo > allowed.hi:
            place = ", ".join(f"{axis} = {float(v):.6g}" for axis, v in point.items())
            raise Refuted(
                f"refuted: |f - m| >= {shown(error.lo, up=False)}, and "
                f"{float(statement.fraction):g} of B <= {shown(allowed.hi, up=True)}, at {place}"
            )


def at_point(statement: Statement, point: Mapping[str, Fraction]) -> tuple[Interval, Interval]:
    """|f - m| and B at one point of the box, as narrow as the arithmetic allows."""
    box = {axis: (point[axis], point[axis]) for axis in statement.box}
    with precision():
        error = enclose.error(statement.T, statement.t, box).magnitude()
        return error, compare.bound(statement.T, statement.t, statement.X, box)


def at_least(statement: Statement, point: Mapping[str, Fraction]) -> float:
    """A number, rounded from one that |f - m| / B provably reaches at the point."""
    error, bound = at_point(statement, point)
    with precision():
        return float((error / bound).lo)


def _where(node: _Node, statement: Statement, seen: int, left: int) -> str:
    sides = ", ".join(
        f"{a} in [{float(lo):.6g}, {float(hi):.6g}]" for a, (lo, hi) in node.box.items()
    )
    found = f"{-node.merit:.6g} of the bound" if math.isfinite(node.merit) else "nothing"
    return (
        f"not proved: after {seen} boxes {left} are open; on the worst |f - m| is shown to be at "
        f"most {found}: {sides}; raise --boxes, --seconds or --fraction, or narrow the cell"
    )
