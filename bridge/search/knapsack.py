"""One candidate a linear, at a budget of the whole model, with the least cost in sum."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from bridge.decode.plan import Plan, Setting
from mech.errors import BadInput


class Candidate(NamedTuple):
    """A setting of one linear, the share of its dense bytes that it reads, and what it costs."""

    setting: Setting
    share: float
    cost: float


Costs = Mapping[str, Sequence[Candidate]]


def knapsack(
    costs: Costs,
    shapes: Mapping[str, tuple[int, int]],
    sparsity: float,
    weight: Mapping[str, float] | None = None,
) -> Plan:
    """argmin Σ_i w_i cost_i over Σ_i share_i n_i = (1 - s) Σ_i n_i, n_i = d_out d_in.

    On the lower convex hulls of each linear's candidates: segments are taken in the order of what
    a byte of theirs lowers the cost by, the steepest first, which is the optimum for convex
    piecewise linear costs (the continuous multiple-choice knapsack; Sinha and Zoltners 1979). The
    last is taken in part: its linear takes the segment's far setting at the sparsity where the
    bytes are exact. `weight`, 1 where a name is missing, says how much a linear's cost counts.

    Raises BadInput where no candidate reads as little as the budget allows.
    """
    left = (1 - sparsity) * sum(shapes[name][0] * shapes[name][1] for name in costs)
    plan: dict[str, Setting] = {}
    segments = []
    for number, (name, candidates) in enumerate(costs.items()):
        size = shapes[name][0] * shapes[name][1]
        factor = 1.0 if weight is None else weight.get(name, 1.0)
        hull = lower_hull(candidates)
        plan[name] = hull[0].setting
        left -= hull[0].share * size
        for near, far in pairwise(hull):
            bought = far.share - near.share
            slope = factor * (far.cost - near.cost) / (bought * size)
            segments.append((slope, number, bought * size, name, far))
    if left < -1e-9 * sum(d_out * d_in for d_out, d_in in shapes.values()):
        raise BadInput(f"sparsity {sparsity}: more than the sparsest candidates leave out")
    # Slopes of one hull rise, so that its segments come in order; equal ones keep theirs.
    for _, _, bytes_, name, far in sorted(segments, key=lambda one: one[:2]):
        if left <= 0:
            break
        size = shapes[name][0] * shapes[name][1]
        if bytes_ <= left:
            plan[name] = far.setting
        else:
            plan[name] = replace(far.setting, sparsity=plan[name].sparsity - left / size)
        left -= bytes_
    return plan


def lower_hull(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The lower convex hull of (share, cost), by rising share, while the cost falls."""
    hull: list[Candidate] = []
    for point in sorted(candidates, key=lambda c: (c.share, c.cost)):
        if hull and point.cost >= hull[-1].cost:
            continue
        while len(hull) > 1 and _above(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _above(a: Candidate, b: Candidate, c: Candidate) -> bool:
    """Whether b lies on or above the line from a to c."""
    return (b.cost - a.cost) * (c.share - a.share) >= (c.cost - a.cost) * (b.share - a.share)
