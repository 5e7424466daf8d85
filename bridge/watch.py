"""What the linears of a block read while it is replayed over the calibration text."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bridge.statistics import Inputs, Moment, Statistic, diagonal_moment
from bridge.stream import Call, Stream, hooked
from mech.errors import BadInput

TokenWeights = Sequence[Float[Tensor, "_batch _seq"]]


class Seen(NamedTuple):
    """Of one linear's inputs: what the method asked for, and the moment that errors are in."""

    statistic: Any
    moment: Moment


def watch(
    block: nn.Module,
    linears: Mapping[str, nn.Linear],
    statistics: Mapping[str, Statistic[Any]],
    stream: Sequence[Stream],
    calls: Sequence[Call],
    token_weights: TokenWeights | None = None,
) -> dict[str, Seen]:
    """One pass of a block; what its linears read, by name.

    Linears that read the same tensors (queries, keys and values do) share the states, which are
    then computed once. With `token_weights` the method's statistic is of √w_t x_t, so that its
    second moments become Σ_t w_t x_t x_tᵀ; the moment that errors are in stays plain.

    Raises BadInput, naming the linear, where it reads other tokens than the weights are of (an
    expert that sees only what is routed to it).
    """
    seen = _begun(linears, statistics)
    memory = _Memory()
    weights: list[Tensor | None] = [None]

    def watcher(name: str):
        def hook(_, args, kwargs):
            x = args[0] if args else kwargs["input"]
            seen[name] = Seen(
                memory.update(name, statistics[name], seen[name].statistic, x, weights[0]),
                memory.update(name, diagonal_moment, seen[name].moment, x, None),
            )

        return hook

    with hooked([(linear, "pre", watcher(name)) for name, linear in linears.items()]):
        for number, (call, resid) in enumerate(zip(calls, stream, strict=True)):
            weights[0] = None if token_weights is None else token_weights[number]
            call.replay(block, resid)
            memory.forget()
    return seen


def _begun(
    linears: Mapping[str, nn.Linear], statistics: Mapping[str, Statistic[Any]]
) -> dict[str, Seen]:
    """Empty states; one object for all linears that could share it."""
    states: dict[tuple[int, int], Seen] = {}
    return {
        name: states.setdefault(
            (linear.in_features, id(statistics[name])),
            Seen(
                statistics[name].init(linear.in_features), diagonal_moment.init(linear.in_features)
            ),
        )
        for name, linear in linears.items()
    }


class _Memory:
    """Updates of a batch by what went in: the same state and the same tensor give one result."""

    def __init__(self):
        self._done: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def update(
        self, name: str, statistic: Statistic[Any], state: Any, x: Tensor, weights: Tensor | None
    ) -> Any:
        # In-place changes of x between two readers raise its version.
        key = (id(statistic), id(state), id(x), None if x.is_inference() else x._version)
        if key not in self._done:
            inputs = x.flatten(0, -2)
            if weights is not None:
                inputs = _weighted(name, inputs, weights)
            # State and tensor are kept as well, so that no other object takes their ids.
            self._done[key] = (statistic.update(state, inputs), state, x)
        return self._done[key][0]

    def forget(self) -> None:
        self._done.clear()


def _weighted(name: str, x: Inputs, weights: Tensor) -> Inputs:
    if weights.numel() != len(x):
        raise BadInput(
            f"{name} reads {len(x)} tokens of a batch whose weights are of {weights.numel()}: "
            "token weights need linears that read every token"
        )
    return (
        x.to(torch.promote_types(x.dtype, torch.float32))
        * weights.to(x.device).flatten().to(torch.float32).sqrt()[:, None]
    )
