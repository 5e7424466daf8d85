"""Walk a model block by block: calibrate, replace, carry on.  Written once, for every method."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn

from bridge.budget import cost
from bridge.compression import Compression, Row, restore
from bridge.fused import parts
from bridge.method import Method
from bridge.methods.oats import scale
from bridge.operators import LinearOperator, Stack
from bridge.sites import block_of, linears, place, standing
from bridge.statistics import Inputs, Moment, diagonal_moment
from bridge.stream import Call, Stream, evaluating, hooked, record
from mech.blocks import decoder_blocks
from mech.errors import BadInput
from mech.tokens import check_ids


class Seen(NamedTuple):
    """Of one linear's inputs: what the method asked for, and the moment that errors are in."""

    statistic: Any
    moment: Moment

    def with_inputs(self, method: Method, x: Inputs) -> "Seen":
        """And `x` too."""
        moment = diagonal_moment.update(self.moment, x)
        if method.statistic is diagonal_moment:
            return Seen(moment, moment)
        return Seen(method.statistic.update(self.statistic, x), moment)


def compress(
    model: nn.Module,
    method: Method,
    batches: Sequence[Int[Tensor, "_batch _seq"]],
    *,
    select: str = "*",
    advance: Callable[[str], None] | None = None,
) -> Compression:
    """Replace, in place, every selected linear by `method(weight, what its inputs looked like)`.

    Blocks are taken in order. The linears of a block are calibrated in one pass with the block
    still dense, on what the compressed blocks before it emit; then the block is run again,
    compressed, for the inputs of the next. The stream is carried at the block boundary: the
    model itself runs once. `select` is an fnmatch glob over names like
    "layers.3.self_attn.q_proj" (see `bridge.sites`); `batches` holds whole windows of token ids,
    no padding, of any sizes; `advance` is called with the name of every linear that is done.

    All or nothing: on any exception the model is as before. Raises BadInput, naming the linear,
    where a weight, a statistic or an output is not finite, where `select` matches nothing, and
    where a batch is empty or holds an id that the model has no embedding for.
    """
    chosen = linears(model, select)
    if not batches:
        raise BadInput("no calibration batches: pass at least one")
    for tokens in batches:
        check_ids(model, tokens)
    for name, linear in chosen.items():
        _check_finite(linear.weight, f"{name}: its weight")
    done = Compression(repr(method), (), sum(b.numel() for b in batches), dict(chosen))
    complete = False
    with evaluating(model), torch.no_grad():
        try:
            rows = tuple(_walk(model, method, batches, chosen, advance or (lambda _: None)))
            complete = True
        finally:
            if not complete:
                restore(model, done)
    return Compression(done.method, rows, done.tokens, done.originals)


@contextmanager
def compressed(
    model: nn.Module,
    method: Method,
    batches: Sequence[Int[Tensor, "_batch _seq"]],
    *,
    select: str = "*",
) -> Iterator[Compression]:
    """The model compressed inside, dense again after."""
    compression = compress(model, method, batches, select=select)
    try:
        yield compression
    finally:
        restore(model, compression)


def _walk(
    model: nn.Module,
    method: Method,
    batches: Sequence[Int[Tensor, "_batch _seq"]],
    chosen: Mapping[str, nn.Linear],
    advance: Callable[[str], None],
) -> Iterator[Row]:
    stream, calls = record(model, batches)
    last = max(block_of(name) for name in chosen)
    for layer, block in enumerate(decoder_blocks(model)[: last + 1]):
        here = {name: linear for name, linear in chosen.items() if block_of(name) == layer}
        seen = _watch(block, here, method, stream, calls[layer]) if here else {}
        for name, linear in here.items():
            yield _replace(model, name, linear, method, seen[name])
            advance(name)
        stream = [
            call.replay(block, resid) for call, resid in zip(calls[layer], stream, strict=True)
        ]
        # Masks and positions of a block that is done are dropped with its calls.
        calls[layer].clear()
        for resid in stream:
            _check_finite(resid, f"layers.{layer}: its output")


def _watch(
    block: nn.Module,
    here: Mapping[str, nn.Linear],
    method: Method,
    stream: Sequence[Stream],
    calls: Sequence[Call],
) -> dict[str, Seen]:
    """One pass of a dense block; what its linears read."""
    seen = {
        name: Seen(
            method.statistic.init(linear.in_features), diagonal_moment.init(linear.in_features)
        )
        for name, linear in here.items()
    }

    def watcher(name: str):
        def hook(_, args, kwargs):
            x = args[0] if args else kwargs["input"]
            seen[name] = seen[name].with_inputs(method, x.flatten(0, -2))

        return hook

    with hooked([(linear, "pre", watcher(name)) for name, linear in here.items()]):
        for call, resid in zip(calls, stream, strict=True):
            call.replay(block, resid)
    return seen


def _replace(model: nn.Module, name: str, linear: nn.Linear, method: Method, seen: Seen) -> Row:
    if seen.moment.tokens == 0:
        raise BadInput(f"{name}: no calibration token reached it; calibrate on more text")
    _check_finite(seen.moment.total, f"{name}: the second moment of its inputs")
    started = time.perf_counter()
    weight = linear.weight.detach()
    pieces = [method(part, seen.statistic) for part in weight.split(parts(model, name, linear))]
    operator = pieces[0] if len(pieces) == 1 else Stack(pieces)
    seconds = time.perf_counter() - started
    placed = standing(operator, linear)
    delta_w, error = _errors(weight, operator, seen.moment)
    _check_finite(
        torch.tensor([delta_w, error], dtype=torch.float64), f"{name}: its compressed weight"
    )
    place(model, {name: placed})
    total = cost(placed, weight.numel())
    return Row(name, operator.shape, total, delta_w, error, seconds)


def _errors(weight: Tensor, operator: LinearOperator, moment: Moment) -> tuple[float, float]:
    columns = scale(moment).to(weight.device)
    difference = weight.double() - operator.dense().double()
    whole = (weight.double() * columns).norm()
    relative = (difference * columns).norm() / whole if whole > 0 else difference.norm()
    return float(difference.square().mean()), float(relative)


def _check_finite(tensor: Tensor, what: str) -> None:
    if not bool(tensor.isfinite().all()):
        raise BadInput(f"{what} is not finite; try bfloat16 or float32, and check the model")
