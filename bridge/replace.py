"""One linear, one component: call the method, check what came back, and account for it."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bridge.budget import cost
from bridge.component import Component
from bridge.compression import Done, Row
from bridge.fused import parts
from bridge.method import ComponentMethod, Method
from bridge.methods.oats import scale
from bridge.operators import Affine, LinearOperator, Stack
from bridge.sites import standing
from bridge.statistics import Moment, SecondMoment
from bridge.watch import Seen
from mech.errors import BadInput


def replaced(
    model: nn.Module, name: str, linear: nn.Linear, method: Method, seen: Seen, *, weighted: bool
) -> Done:
    """`method` applied to one linear, to each of its matrices where it is fused.

    Raises BadInput, naming the linear, where no token reached it, and where its statistic or
    what the method made of it is not finite.
    """
    check_seen(name, seen.moment)
    started = time.perf_counter()
    weight = linear.weight.detach()
    pieces = [method(part, seen.statistic) for part in weight.split(parts(model, name, linear))]
    operator = pieces[0] if len(pieces) == 1 else Stack(pieces)
    operator.note = "; ".join(dict.fromkeys(piece.note for piece in pieces if piece.note))
    seconds = time.perf_counter() - started
    full = seen.statistic if isinstance(seen.statistic, SecondMoment) and not weighted else None
    return accounted(name, linear, operator, seen.moment, full, seconds)


def replaced_component(
    component: Component, method: ComponentMethod, state: Any, moments: Mapping[str, Moment]
) -> dict[str, Done]:
    """`method` applied to a whole component; the linears that it replaced, by name.

    `moments` are by full name. Raises BadInput as `replaced` does, and where the method names a
    role that the component has not.
    """
    for name in component.names.values():
        check_seen(name, moments[name])
    started = time.perf_counter()
    operators = method(component, state)
    seconds = (time.perf_counter() - started) / max(len(operators), 1)
    done = {}
    for role, operator in operators.items():
        if role not in component.names:
            roles = ", ".join(component.names)
            raise BadInput(f"{method!r} replaces {role!r}: this {component.kind} has {roles}")
        name = component.names[role]
        linear = component.linears[role]
        done[name] = accounted(name, linear, operator, moments[name], None, seconds)
    return done


def accounted(
    name: str,
    linear: nn.Linear,
    operator: LinearOperator | Affine,
    moment: Moment,
    full: SecondMoment | None,
    seconds: float,
) -> Done:
    """`operator` in the format and place of `linear`, and its line; an Affine brings its bias."""
    term = operator.term if isinstance(operator, Affine) else operator
    weight = linear.weight.detach()
    if operator.shape != tuple(weight.shape):
        raise BadInput(f"{name}: a {operator.shape} operator for a {tuple(weight.shape)} weight")
    placed = standing(operator, linear)
    # In place, in a copy of its own: no third matrix of float64.
    difference = weight.to(torch.float64, copy=True).sub_(term.dense())
    delta_w, error = _errors(weight, difference, moment)
    check_finite(
        torch.tensor([delta_w, error], dtype=torch.float64), f"{name}: its compressed weight"
    )
    output = None if full is None else _output_error(weight, difference, full)
    total = cost(placed, weight.numel())
    row = Row(name, operator.shape, total, delta_w, error, seconds, output, term.note)
    return Done(placed, row)


def check_seen(name: str, moment: Moment) -> None:
    """Some token reached the linear, and all were finite; else BadInput."""
    if moment.tokens == 0:
        raise BadInput(f"{name}: no calibration token reached it; calibrate on more text")
    check_finite(moment.total, f"{name}: the second moment of its inputs")


def check_finite(tensor: Tensor, what: str) -> None:
    """Raises BadInput where an entry is not finite."""
    if not bool(tensor.isfinite().all()):
        raise BadInput(f"{what} is not finite; try bfloat16 or float32, and check the model")


def _errors(weight: Tensor, difference: Tensor, moment: Moment) -> tuple[float, float]:
    columns = scale(moment).to(weight.device)
    whole = (weight.double() * columns).norm()
    relative = (difference * columns).norm() / whole if whole > 0 else difference.norm()
    return float(difference.square().mean()), float(relative)


def _output_error(weight: Tensor, difference: Tensor, full: SecondMoment) -> float:
    def energy(matrix: Tensor) -> Tensor:
        return ((matrix @ full.mean.to(matrix)) * matrix).sum().clamp_min(0)

    whole = energy(weight.double())
    return float((energy(difference) / whole).sqrt()) if whole > 0 else 0.0
