"""Walk a model block by block: calibrate, replace, carry on.  Written once, for every method."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor, nn

from bridge.component import Component, components
from bridge.compression import Compression, Done, Row, restore
from bridge.method import ComponentMethod, Method
from bridge.replace import check_finite, replaced, replaced_component
from bridge.sites import block_of, left_dense, linears, matching, place, show, standing
from bridge.statistics import nothing
from bridge.stream import Call, Stream, evaluating, record
from bridge.watch import Seen, TokenWeights, watch
from mech.blocks import decoder_blocks
from mech.errors import BadInput
from mech.tokens import check_ids

AnyMethod = Method | ComponentMethod | Mapping[str, Method]


@runtime_checkable
class Ranks(Protocol):
    """Processes that compress one model together, each on its own part of the calibration text.

    Every rank calls `compress` with the same arguments. Statistics are sums, so that adding them
    over ranks gives what one process would have seen; which linears a rank replaces is dealt out;
    every rank ends with all of them.
    """

    def mine(self, batches: Sequence[Any]) -> Sequence[Any]:
        """The calibration batches of this rank, at least one."""
        ...

    def summed(self, seen: Mapping[str, Seen]) -> dict[str, Seen]:
        """What all ranks saw of a block's linears together; the same on every rank."""
        ...

    def dealt(self, linears: Mapping[str, nn.Linear]) -> Collection[str]:
        """The linears of a block that this rank replaces; over all ranks each once."""
        ...

    def shared(self, done: Mapping[str, Done], linears: Mapping[str, nn.Linear]) -> dict[str, Done]:
        """What all ranks made of a block's linears, in the block's order, on every rank."""
        ...


@runtime_checkable
class Shards(Protocol):
    """Where blocks that are done are kept, so that a run that was killed goes on."""

    def running(
        self,
        model: nn.Module,
        method: AnyMethod,
        batches: Sequence[Int[Tensor, "_batch _seq"]],
        *,
        select: str,
        token_weights: TokenWeights | None,
    ) -> AbstractContextManager[None]:
        """Inside, they are of this run; entering refuses to go on with another one's."""
        ...

    def holds(self, layer: int) -> bool:
        """Whether something is kept of a block, sound or not."""
        ...

    def read(self, layer: int) -> Mapping[str, Done] | None:
        """What stood in a block, by linear; None where it is still to be done."""
        ...

    def write(self, layer: int, done: Mapping[str, Done]) -> None:
        """Keep a block that is done, whole or not at all."""
        ...


def compress(
    model: nn.Module,
    method: AnyMethod,
    batches: Sequence[Int[Tensor, "_batch _seq"]],
    *,
    select: str = "*",
    token_weights: TokenWeights | None = None,
    shards: Shards | None = None,
    ranks: Ranks | None = None,
    advance: Callable[[str], None] | None = None,
) -> Compression:
    """Replace, in place, every selected linear by `method(weight, what its inputs looked like)`.

    Blocks are taken in order. The linears of a block are calibrated in one pass with the block
    still dense, on what the compressed blocks before it emit; then the block is run again,
    compressed, for the inputs of the next. The stream is carried at the block boundary: the
    model itself runs once. `select` is an fnmatch glob over names like
    "layers.3.self_attn.q_proj" (see `bridge.sites`); `batches` holds whole windows of token ids,
    no padding, of any sizes; `advance` is called with the name of every linear that is done.

    `method` is one for all linears, one of whole components (`bridge.component`), or a mapping
    from names to methods, in which what is not named stays dense. `token_weights`, one tensor
    of the shape of each batch, w_t >= 0, makes every second moment Σ_t w_t x_t x_tᵀ. `shards`
    keeps what is done, block by block, and gives it back. `ranks` are the processes that share
    the work; all of them call this with the same arguments.

    Matrices that a family does not keep in linears (GPT-2's Conv1D, stacks of experts) are
    linears afterwards, until `restore`. What holds matrices and stays dense is in
    `Compression.left`.

    All or nothing: on any exception the model is as before. Raises BadInput, naming the linear,
    where a weight, a statistic or an output is not finite, where `select` or a name matches
    nothing, where a batch is empty or holds an id that the model has no embedding for, and
    where weights are negative or of another shape than the tokens.
    """
    asked = _work(model, method, select)
    if not batches:
        raise BadInput("no calibration batches: pass at least one")
    for tokens in batches:
        check_ids(model, tokens)
    _check_weights(batches, token_weights)
    if token_weights is not None and isinstance(method, ComponentMethod):
        raise BadInput(
            "token weights are for methods of one linear: components watch for themselves"
        )
    if ranks is not None and isinstance(method, ComponentMethod):
        raise BadInput(f"{method!r} replaces whole components, which ranks do not share: use one")
    tell = advance or (lambda _: None)
    running = (
        nullcontext()
        if shards is None
        else shards.running(model, method, batches, select=select, token_weights=token_weights)
    )
    complete = False
    with evaluating(model), torch.no_grad(), running:
        # Only what is replaced: a stack of experts that stays dense stays the family's own.
        originals: dict[str, nn.Module] = show(model, asked.linears)
        try:
            work = _work(model, method, select)
            originals = {**work.linears, **originals}
            for name, linear in work.linears.items():
                check_finite(linear.weight, f"{name}: its weight")
            rows = tuple(_walk(model, work, batches, token_weights, shards, ranks, tell))
            complete = True
        finally:
            if not complete:
                place(model, originals)
    tokens = sum(b.numel() for b in batches)
    return Compression(repr(method), rows, tokens, originals, left_dense(model, select))


@contextmanager
def compressed(
    model: nn.Module,
    method: AnyMethod,
    batches: Sequence[Int[Tensor, "_batch _seq"]],
    *,
    select: str = "*",
    token_weights: TokenWeights | None = None,
) -> Iterator[Compression]:
    """The model compressed inside, dense again after."""
    compression = compress(model, method, batches, select=select, token_weights=token_weights)
    try:
        yield compression
    finally:
        restore(model, compression)


class _Work(NamedTuple):
    """Which linears, and by which methods: of each alone, or of components."""

    linears: dict[str, nn.Linear]
    methods: Mapping[str, Method]
    component_method: ComponentMethod | None
    components: Sequence[Component]

    def of(self, layer: int) -> "_Work":
        here = {name: linear for name, linear in self.linears.items() if block_of(name) == layer}
        parts = [component for component in self.components if component.layer == layer]
        return _Work(here, self.methods, self.component_method, parts)


def _work(model: nn.Module, method: AnyMethod, select: str) -> _Work:
    if isinstance(method, ComponentMethod):
        found = components(model, select)
        named = {c.names[role]: c.linears[role] for c in found for role in c.names}
        known = linears(model, select)
        chosen = {name: linear for name, linear in known.items() if name in named}
        return _Work(chosen, {}, method, found)
    chosen = linears(model, select)
    if isinstance(method, Method):
        return _Work(chosen, dict.fromkeys(chosen, method), None, ())
    for name in method:
        if name not in chosen:
            matching(chosen, name, "linear")
    return _Work({n: linear for n, linear in chosen.items() if n in method}, method, None, ())


def _walk(
    model: nn.Module,
    work: _Work,
    batches: Sequence[Int[Tensor, "_batch _seq"]],
    token_weights: TokenWeights | None,
    shards: Shards | None,
    ranks: Ranks | None,
    advance: Callable[[str], None],
) -> Iterator[Row]:
    layers = sorted({block_of(name) for name in work.linears})
    found: dict[int, Mapping[str, Done] | None] = {}
    if shards is not None and all(shards.holds(layer) for layer in layers):
        found = {layer: shards.read(layer) for layer in layers}
        if all(found.values()):  # nothing is calibrated: nothing has to run
            yield from _assembled(model, work, found, advance)
            return
    if ranks is not None:
        batches = ranks.mine(batches)
        token_weights = None if token_weights is None else ranks.mine(token_weights)
    stream, calls = record(model, batches)
    last = layers[-1]
    for layer, block in enumerate(decoder_blocks(model)[: last + 1]):
        here = work.of(layer)
        if here.linears:
            kept = found.get(layer)
            if shards is not None and layer not in found:
                kept = shards.read(layer)
            if kept is None:
                done = _block(
                    model, block, here, stream, calls[layer], token_weights, ranks, advance
                )
                if shards is not None:
                    shards.write(layer, done)
                    # What is read back stands: in memory laid out as it will be after a kill.
                    done = _taken(here, shards.read(layer) or done, layer)
            else:
                done = _taken(here, kept, layer)
                for name in done:
                    advance(name)
            place(model, {name: one.operator for name, one in done.items()})
            yield from (one.row for one in done.values())
        stream = [
            call.replay(block, resid) for call, resid in zip(calls[layer], stream, strict=True)
        ]
        # Masks and positions of a block that is done are dropped with its calls.
        calls[layer].clear()
        for resid in stream:
            check_finite(resid, f"layers.{layer}: its output")


def _assembled(
    model: nn.Module,
    work: _Work,
    found: Mapping[int, Mapping[str, Done] | None],
    advance: Callable[[str], None],
) -> Iterator[Row]:
    """What the shards hold of all blocks, put in place."""
    for layer, kept in found.items():
        done = _taken(work.of(layer), kept or {}, layer)
        place(model, {name: one.operator for name, one in done.items()})
        for name, one in done.items():
            advance(name)
            yield one.row


def _block(
    model: nn.Module,
    block: nn.Module,
    work: _Work,
    stream: Sequence[Stream],
    calls: Sequence[Call],
    token_weights: TokenWeights | None,
    ranks: Ranks | None,
    advance: Callable[[str], None],
) -> dict[str, Done]:
    """Calibrate a dense block in one pass, and replace its linears."""
    method = work.component_method
    statistics = {
        name: nothing if method else work.methods[name].statistic for name in work.linears
    }
    with ExitStack() as watching:
        states = [
            watching.enter_context(method.watch(component)) if method else None
            for component in work.components
        ]
        seen = watch(block, work.linears, statistics, stream, calls, token_weights)
    done: dict[str, Done] = {}
    if method is not None:
        moments = {name: state.moment for name, state in seen.items()}
        for component, state in zip(work.components, states, strict=True):
            done |= replaced_component(component, method, state, moments)
            advance(f"layers.{component.layer}: {component.kind}")
        return done
    if ranks is not None:
        seen = ranks.summed(seen)
    own = work.linears if ranks is None else ranks.dealt(work.linears)
    for name, linear in work.linears.items():
        if name not in own:
            continue
        weighted = token_weights is not None
        done[name] = replaced(
            model, name, linear, work.methods[name], seen[name], weighted=weighted
        )
        advance(name)
    return done if ranks is None else ranks.shared(done, work.linears)


def _taken(work: _Work, kept: Mapping[str, Done], layer: int) -> dict[str, Done]:
    """What a shard holds of a block, in the format and place of its linears."""
    unknown = set(kept) - set(work.linears)
    if unknown or (work.component_method is None and set(kept) != set(work.linears)):
        raise BadInput(f"layers.{layer}: the shard holds other linears than this run compresses")
    return {
        name: Done(standing(one.operator, work.linears[name]), one.row)
        for name, one in kept.items()
    }


def _check_weights(batches: Sequence[Tensor], token_weights: TokenWeights | None) -> None:
    if token_weights is None:
        return
    if [w.shape for w in token_weights] != [tokens.shape for tokens in batches]:
        raise BadInput("token weights: pass one tensor a batch, of the shape of its tokens")
    if not all(bool((w.isfinite() & (w >= 0)).all()) for w in token_weights):
        raise BadInput("token weights: finite and at least 0")
    if not any(bool((w > 0).any()) for w in token_weights):
        raise BadInput("token weights: all are 0")
