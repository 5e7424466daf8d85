"""Reversible edits of a model: switch terms off, put operators in the place of linears."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from bridge.operators import LinearOperator, Operator
from bridge.sites import module, operators, place, standing
from mech.errors import BadInput


@contextmanager
def without(model: nn.Module, kind: type[LinearOperator], *, select: str = "*") -> Iterator[int]:
    """The terms of exactly this kind are zero inside, and as they were after.

    `without(model, LowRank)` leaves S of OATS' S + L, `without(model, Sparse)` leaves L; biases
    stay. `select` is a glob over the names of the linears that the operators replaced. Gives the
    number of terms. Raises BadInput where no operator or no term matches.
    """
    terms = [
        term
        for operator in operators(model, select).values()
        for term in operator.modules()
        if isinstance(term, LinearOperator) and type(term) is kind
    ]
    if not terms:
        names = list(operators(model)) or ["none: the model is not compressed"]
        raise BadInput(
            f"no {kind.__name__} term in an operator that matches {select!r}; "
            f"operators are like {', '.join(names[:3])}"
        )
    before = [term.active for term in terms]
    try:
        for term in terms:
            term.active = False
        yield len(terms)
    finally:
        for term, active in zip(terms, before, strict=True):
            term.active = active


@contextmanager
def swap(model: nn.Module, replacements: Mapping[str, Operator | nn.Linear]) -> Iterator[None]:
    """Operators stand at the given names inside; what stood there stands there again after.

    A bias stays in force under a LinearOperator, be it of a linear or of the operator that
    stands for one; a linear brings its own. A replacement takes device and dtype of what it
    replaces and is moved in place. Raises BadInput where a name is unknown or a shape differs;
    the model is then untouched.
    """
    before = {name: _replaceable(model, name) for name in replacements}
    inside = {}
    for name, replacement in replacements.items():
        old, new = _shape(before[name]), _shape(replacement)
        if old != new:
            raise BadInput(f"{name}: a {new} operator in the place of {old}")
        inside[name] = standing(replacement, before[name])
    place(model, inside)
    try:
        yield
    finally:
        place(model, before)


def _replaceable(model: nn.Module, name: str) -> nn.Linear | Operator:
    found = module(model, name)
    if not isinstance(found, nn.Linear | Operator):
        raise BadInput(f"{name} is a {type(found).__name__}: not a linear or an operator")
    return found


def _shape(found: nn.Linear | Operator) -> tuple[int, int]:
    if isinstance(found, nn.Linear):
        return found.out_features, found.in_features
    return found.shape
