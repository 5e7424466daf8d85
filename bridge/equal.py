"""Equal budgets: the hyperparameters with which a method spends at most so much, and nearly all.

A method is given as a template with one number left open: the density of its pattern, its
compression, its rank. That number is solved for in exact integers; the other fields stay.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Literal, NamedTuple, TypeVar

from torch import nn

from bridge.budget import Cost
from bridge.fused import parts
from bridge.patterns import LayerWise, RowWise
from bridge.planned import Shape, planned
from bridge.sites import linears
from mech.errors import BadInput

Measure = Literal["kept", "bits", "flops", "bytes_moved"]
M = TypeVar("M")


def at_most(
    template: M, shapes: Sequence[Shape], target: int, *, measure: Measure = "kept", width: int = 32
) -> M:
    """The template whose planned `measure` is largest among those ≤ `target`.

    `shapes`: of the matrices that one linear holds; `width`: bits of a number. Every cost rises
    with the open number (a density in steps of one parameter, a rank in steps of one), so the
    largest is found by bisection, exactly. Raises BadInput where even the least costs more, or
    where the template has no open number (2:4 has a density of its own).

    Examples:
        >>> from bridge.methods.wanda import Wanda
        >>> at_most(Wanda(), [(48, 32)], target=500).pattern.kept(48, 32)
        480
    """
    open_ = _open(template, shapes)
    if planned(open_.method(open_.least), shapes, width)._asdict()[measure] > target:
        least = planned(open_.method(open_.least), shapes, width)._asdict()[measure]
        raise BadInput(
            f"{target} {measure} for {_named(shapes)}: {type(template).__name__} needs at least "
            f"{least}"
        )
    low, high = open_.least, open_.most
    while low < high:
        middle = (low + high + 1) // 2
        spent = planned(open_.method(middle), shapes, width)._asdict()[measure]
        low, high = (middle, high) if spent <= target else (low, middle - 1)
    return open_.method(low)


class Linear(NamedTuple):
    """What a budget has to know of a linear: its matrices, and the bits of one number."""

    shapes: tuple[Shape, ...]
    width: int

    @property
    def parameters(self) -> int:
        """Weights of all its matrices."""
        return sum(d_out * d_in for d_out, d_in in self.shapes)


def shapes_of(model: nn.Module, select: str = "*") -> dict[str, Linear]:
    """The selected linears of a model, fused queries, keys and values as three matrices."""
    return {
        name: Linear(
            tuple((rows, linear.in_features) for rows in parts(model, name, linear)),
            8 * linear.weight.element_size(),
        )
        for name, linear in linears(model, select).items()
    }


def spread(
    template: M,
    shapes: Mapping[str, Linear],
    allowed: Mapping[str, int],
    *,
    measure: Measure = "kept",
) -> dict[str, M]:
    """A method a linear that spends at most Σ `allowed`, and what one leaves the next may use.

    After every linear the sum spent is at most the sum allowed so far: the total is never above
    the target, and below it by less than one step of the last linear's open number. Raises
    BadInput as `at_most` does, naming the linear.
    """
    chosen, left = {}, 0
    for name, target in allowed.items():
        linear = shapes[name]
        left += target
        try:
            method = at_most(template, linear.shapes, left, measure=measure, width=linear.width)
        except BadInput as error:
            raise BadInput(f"{name}: {error}") from error
        left -= planned(method, linear.shapes, linear.width)._asdict()[measure]
        chosen[name] = method
    return chosen


def same_budget(
    template: M,
    other: Mapping[str, object],
    shapes: Mapping[str, Linear],
    *,
    measure: Measure = "kept",
) -> dict[str, M]:
    """`template` with what `other` spends, linear by linear: two methods at one budget.

    `other`: name → method. The sum over linears is at most the other's, as in `spread`. Raises
    BadInput as `spread` does.
    """
    allowed = {
        name: planned(method, shapes[name].shapes, shapes[name].width)._asdict()[measure]
        for name, method in other.items()
    }
    return spread(template, shapes, allowed, measure=measure)


def total(methods: Mapping[str, object], shapes: Mapping[str, Linear]) -> Cost:
    """What all of them will spend."""
    costs = [
        planned(method, shapes[name].shapes, shapes[name].width) for name, method in methods.items()
    ]
    return sum(costs[1:], start=costs[0])


class _Open(NamedTuple):
    """A template's open number as an integer, from `least` to `most`."""

    method: Callable[[int], Any]
    least: int
    most: int


def _open(template: Any, shapes: Sequence[Shape]) -> _Open:
    parameters = sum(d_out * d_in for d_out, d_in in shapes)
    names = {field.name for field in fields(template)}
    # Half a parameter off the whole number, so that no rounding of a float tips a count: patterns
    # round what they keep up, budgets of sparse plus low rank round it down.
    if isinstance(getattr(template, "pattern", None), RowWise | LayerWise):
        kind = type(template.pattern)
        return _Open(
            lambda n: replace(template, pattern=kind((n - 0.5) / parameters)), 1, parameters
        )
    # N of M says what S keeps, and with κ what L does.
    if "compression" in names and getattr(template, "groups", None) is None:
        return _Open(
            lambda n: replace(template, compression=1 - (n + 0.5) / parameters), 1, parameters - 1
        )
    if "rank" in names:
        largest = min(min(shape) for shape in shapes)
        return _Open(lambda n: replace(template, rank=n), 1, largest)
    raise BadInput(f"{template!r} leaves no number open to fit to a budget")


def _named(shapes: Sequence[Shape]) -> str:
    return " + ".join(f"{d_out} x {d_in}" for d_out, d_in in shapes)
