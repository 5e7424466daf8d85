"""Error curves: measured error against what is kept, and the budget that lowers their sum most."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, nn

from bridge.allocate.seen import seen
from bridge.equal import Linear, at_most, shapes_of
from bridge.methods.oats import scale
from bridge.sites import linears
from bridge.statistics import Moment, SecondMoment, diagonal_moment
from mech.errors import BadInput

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Curve(NamedTuple):
    """error[i] of a linear that keeps kept[i] parameters; kept rises, from none to all."""

    kept: Int[np.ndarray, " point"]
    error: Float[np.ndarray, " point"]


def curves(
    model: nn.Module,
    template: Any,
    batches: Sequence[Int[Tensor, "_batch _seq"]],
    *,
    shares: Sequence[float] = SHARES,
    select: str = "*",
) -> dict[str, Curve]:
    """‖(W - Ŵ) D‖² / ‖W D‖², D = diag √E[x²], of every linear at every share of its parameters.

    Ŵ is what `template` leaves with `bridge.equal.at_most`; the ends are known: 1 where nothing
    is kept, 0 where all is. Statistics are of the dense model, so that linears can be measured
    one by one. Raises BadInput where a share is outside (0, 1), and as `at_most` does.
    """
    if not shares or min(shares) <= 0 or max(shares) >= 1:
        raise BadInput(f"shares {tuple(shares)}: above 0 and below 1")
    states = seen(model, template.statistic, batches, select)
    moments = {name: _moment(state) for name, state in states.items()}
    if any(moment is None for moment in moments.values()):
        moments = seen(model, diagonal_moment, batches, select)
    shapes = shapes_of(model, select)
    return {
        name: _curve(linear, shapes[name], template, states[name], moments[name], sorted(shares))
        for name, linear in linears(model, select).items()
    }


def greedy(found: Mapping[str, Curve], total: int) -> dict[str, int]:
    """argmin Σ_i e_i(a_i) over Σ a_i = total, e_i the curves' lower convex hulls.

    Segments of the hulls are taken in the order of what a parameter of theirs lowers the error
    by, the steepest first: for convex piecewise linear curves that is the optimum. The last one
    is taken in part, so that the sum is exact: there a dent of that curve may cost more than its
    hull says. Raises BadInput where the total is not between
    none and all.
    """
    most = sum(int(curve.kept[-1]) for curve in found.values())
    if not 0 <= total <= most:
        raise BadInput(f"{total} parameters to keep of {most}")
    segments = [
        (slope, number, size, name)
        for number, (name, curve) in enumerate(found.items())
        for slope, size in _segments(curve)
    ]
    allowed, left = dict.fromkeys(found, 0), total
    # Ties and segments of one hull keep their order: slopes of a hull rise.
    for _, _, size, name in sorted(segments, key=lambda segment: segment[:2]):
        taken = min(size, left)
        allowed[name] += taken
        left -= taken
    return allowed


def _moment(state: Any) -> Moment | None:
    if isinstance(state, SecondMoment):
        return state.diagonal
    return state if isinstance(state, Moment) else None


def _curve(
    linear: nn.Linear,
    shapes: Linear,
    template: Any,
    state: Any,
    moment: Moment | None,
    shares: Sequence[float],
) -> Curve:
    assert moment is not None
    weight = linear.weight.detach()
    columns = scale(moment).to(weight.device)
    rows = [d_out for d_out, _ in shapes.shapes]
    whole = float((weight.double() * columns).square().sum())
    kept, error = [0], [1.0]
    for share in shares:
        target = int(share * shapes.parameters)
        method: Any = at_most(template, shapes.shapes, target, width=shapes.width)
        lost = sum(
            float(((part.double() - method(part, state).dense().double()) * columns).square().sum())
            for part in weight.split(rows)
        )
        kept.append(target)
        error.append(lost / whole if whole > 0 else 0.0)
    return Curve(np.array([*kept, shapes.parameters]), np.array([*error, 0.0]))


def _segments(curve: Curve) -> list[tuple[float, int]]:
    """(slope, parameters) of the lower convex hull, from left to right: the slopes rise."""
    hull: list[tuple[int, float]] = []
    for point in zip(curve.kept.tolist(), curve.error.tolist(), strict=True):
        while len(hull) > 1 and _above(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return [((e1 - e0) / (k1 - k0), k1 - k0) for (k0, e0), (k1, e1) in pairwise(hull)]


def _above(a: tuple[int, float], b: tuple[int, float], c: tuple[int, float]) -> bool:
    """Whether b lies on or above the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])
