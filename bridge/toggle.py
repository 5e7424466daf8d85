"""Reversible edits of a model: switch terms off, put operators in the place of linears."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from bridge.heads import of_heads
from bridge.masked import Masked
from bridge.operators import LinearOperator, Operator, Stack
from bridge.sites import module, operators, place, standing
from mech.errors import BadInput

Term = tuple[str, LinearOperator]  # its path in the model, and itself


@contextmanager
def without(
    model: nn.Module,
    kind: type[LinearOperator],
    *,
    select: str = "*",
    heads: Collection[int] | None = None,
) -> Iterator[int]:
    """The terms of exactly this kind are zero inside, and as they were after.

    `without(model, LowRank)` leaves S of OATS' S + L, `without(model, Sparse)` leaves L, one
    inside the other leaves nothing; biases stay. `select` is a glob over the names of the linears
    that the operators replaced. With `heads` only the entries of these heads are zero, as
    `bridge.heads.of_heads` tells them: rows of W_Q, W_K, W_V, columns of W_O. Gives the number of
    terms. Raises BadInput where no operator or no term matches, and where a matching one has no
    such heads; the model is then untouched.
    """
    terms = [
        (f"{name}.{path}" if path else name, term)
        for name, operator in operators(model, select).items()
        for path, term in operator.named_modules()
        if isinstance(term, LinearOperator) and type(term) is kind
    ]
    if not terms:
        names = list(operators(model)) or ["none: the model is not compressed"]
        raise BadInput(
            f"no {kind.__name__} term in an operator that matches {select!r}; "
            f"operators are like {', '.join(names[:3])}"
        )
    switch = _off(terms) if heads is None else _masked(model, terms, _owned(model, select, heads))
    with switch:
        yield len(terms)


@contextmanager
def _off(terms: Sequence[Term]) -> Iterator[None]:
    before = [term.active for _, term in terms]
    try:
        for _, term in terms:
            term.active = False
        yield
    finally:
        for (_, term), active in zip(terms, before, strict=True):
            term.active = active


@contextmanager
def _masked(model: nn.Module, terms: Sequence[Term], owned: Mapping[str, Tensor]) -> Iterator[None]:
    try:
        place(model, {path: Masked(term, ~owned[path]) for path, term in terms})
        yield
    finally:
        place(model, dict(terms))


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


def _owned(model: nn.Module, select: str, heads: Collection[int]) -> dict[str, Tensor]:
    """Entries of the given heads, by the path of every term: of a Stack each has its own rows."""
    found = {}
    for name, operator in operators(model, select).items():
        owned = of_heads(model, name, operator.shape, heads)
        found |= dict(_by_path(operator, name, owned))
    return found


def _by_path(operator: nn.Module, path: str, owned: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield path, owned
    if isinstance(operator, Stack):
        pieces = owned.split([term.shape[0] for term in operator.each()])
        for index, (term, piece) in enumerate(zip(operator.each(), pieces, strict=True)):
            yield from _by_path(term, f"{path}.terms.{index}", piece)
        return
    for child, module_ in operator.named_children():
        yield from _by_path(module_, f"{path}.{child}", owned)


def _replaceable(model: nn.Module, name: str) -> nn.Linear | Operator:
    found = module(model, name)
    if not isinstance(found, nn.Linear | Operator):
        raise BadInput(f"{name} is a {type(found).__name__}: not a linear or an operator")
    return found


def _shape(found: nn.Linear | Operator) -> tuple[int, int]:
    if isinstance(found, nn.Linear):
        return found.out_features, found.in_features
    return found.shape
