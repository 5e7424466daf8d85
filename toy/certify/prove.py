"""Branch and bound: halve boxes until |f - m| <= fraction * B is proved on each."""

import heapq
import math
import time
from collections.abc import Callable, Mapping
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from itertools import count
from typing import NamedTuple

from flint import arb

from toy.certify import enclose
from toy.certify.boxes import PARAMETERS, Box, Statement, halves, middle
from toy.certify.intervals import Interval, Poisoned, exact, precision
from toy.errors import NonPositiveQuery, Refused

SLACK = Fraction(1, 10**6)
"""A leaf claims this much more than was proved, so that other arithmetic can confirm it."""


class NotProved(Refused):
    """The statement is neither proved nor refuted within the budget."""


class Refuted(Refused):
    """The statement is false: the message holds a point where it fails."""


class Leaf(NamedTuple):
    """A part of the box, by its path of halvings, and what |f - m| does not exceed there."""

    path: tuple[str, ...]
    error: Decimal


class Proof(NamedTuple):
    """The leaves fill the box of the statement, and every `error` is at most fraction * B there."""

    statement: Statement
    leaves: tuple[Leaf, ...]
    boxes: int
    """Boxes on which f - m and B were enclosed."""


class _Node(NamedTuple):
    """Ordered by how far it is from proved, the worst first."""

    merit: float
    number: int
    path: tuple[str, ...]
    box: Box
    error: Decimal | None


def prove(
    statement: Statement,
    *,
    boxes: int = 100_000,
    seconds: float = 600.0,
    advance: Callable[[int, int], object] = lambda done, left: None,
) -> Proof:
    """Leaves on each of which sup |f - m| <= fraction * inf B, that together fill the box.

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
    numbers = count()
    waiting = [_node(statement, (), statement.box, next(numbers))]
    proved: list[Leaf] = []
    while waiting:
        advance(len(proved), len(waiting))
        node = heapq.heappop(waiting)
        if node.error is not None:
            proved.append(Leaf(node.path, node.error))
            continue
        seen = next(numbers)
        if seen + 1 >= boxes or time.monotonic() > until:
            refute(statement, [{axis: middle(ends) for axis, ends in node.box.items()}])
            raise NotProved(_where(node, statement, seen, len(waiting) + 1))
        axis = _longest(statement, node.box)
        for sign, half in zip("-+", halves(node.box, axis), strict=True):
            path = (*node.path, axis + sign)
            heapq.heappush(waiting, _node(statement, path, half, next(numbers)))
    return Proof(statement, tuple(sorted(proved)), next(numbers))


def _node(statement: Statement, path: tuple[str, ...], box: Box, number: int) -> _Node:
    """Enclose error and bound on the box; where that is lost, it is infinitely far from proved."""
    try:
        error = enclose.error(statement.T, statement.t, box).magnitude()
        allowed = enclose.bound(statement.T, statement.t, statement.X, box) * statement.fraction
    except Poisoned:
        return _Node(-math.inf, number, path, box, None)
    claimed = round_up((error * (1 + SLACK)).hi)
    holds = exact(Fraction(claimed)).hi <= (allowed * (1 - SLACK)).lo
    ratio = float((error.hi / allowed.lo).upper()) if allowed.lo > 0 else math.inf
    return _Node(-ratio, number, path, box, claimed if holds else None)


def _longest(statement: Statement, box: Box) -> str:
    """The axis to halve: the one whose length is likely to cost most.

    The length of a number is its share of [-X, X], and a quarter of that before [SEP], where it
    only crowds a row or leaks; that of a parameter is 2 log(max B / min B) along it.
    """

    def length(axis: str) -> float:
        low, high = box[axis]
        if low == high:
            return 0.0
        if axis not in PARAMETERS:
            share = float((high - low) / (2 * statement.X))
            return share if int(axis[1:]) > statement.t else share / 4
        middles = {p: (middle(box[p]), middle(box[p])) for p in PARAMETERS}
        try:
            along = enclose.bound(
                statement.T, statement.t, statement.X, {**box, **middles, axis: box[axis]}
            )
        except Poisoned:
            return math.inf
        return 2 * float((along.hi / along.lo).log()) if along.lo > 0 else math.inf

    return max(box, key=length)


def round_up(value: arb) -> Decimal:
    """The least decimal of 8 digits that is not below the value."""
    mantissa, exponent = (int(part) for part in value.upper().man_exp())
    whole = Fraction(mantissa) * Fraction(2) ** exponent
    return Context(8, ROUND_CEILING).divide(Decimal(whole.numerator), Decimal(whole.denominator))


def _check_query(statement: Statement) -> None:
    """q_lo grows with s and d and falls with |b|: its least value is at one corner of the cell."""
    b = max(statement.b, key=abs)
    corner = {"s": (statement.s[0],) * 2, "b": (b, b), "d": (statement.d[0],) * 2}
    try:
        enclose.bound(statement.T, statement.t, statement.X, corner)
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
        error, allowed = at_point(statement, point)
        if error.lo > allowed.hi:
            place = ", ".join(f"{axis} = {float(v):.6g}" for axis, v in point.items())
            raise Refuted(
                f"refuted: |f - m| >= {float(error.lo):.6g} exceeds {float(statement.fraction):g} "
                f"of the bound, {float(allowed.hi):.6g}, at {place}"
            )


def at_point(statement: Statement, point: Mapping[str, Fraction]) -> tuple[Interval, Interval]:
    """|f - m| and fraction * B at one point, as narrow as the arithmetic allows."""
    box = {axis: (point[axis], point[axis]) for axis in statement.box}
    with precision():
        error = enclose.error(statement.T, statement.t, box).magnitude()
        bound = enclose.bound(statement.T, statement.t, statement.X, box)
        return error, bound * statement.fraction


def _where(node: _Node, statement: Statement, seen: int, left: int) -> str:
    sides = ", ".join(
        f"{a} in [{float(lo):.6g}, {float(hi):.6g}]" for a, (lo, hi) in node.box.items()
    )
    reach = f"{-node.merit:.4g} of what is allowed" if math.isfinite(node.merit) else "nothing"
    return (
        f"not proved: after {seen} boxes {left} are open; on the worst the error is enclosed by "
        f"{reach}: {sides}; raise --boxes or --seconds, or narrow the cell"
    )
