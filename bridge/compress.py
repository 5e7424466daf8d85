"""Walk a model block by block: calibrate, replace, carry on.  Written once, for every method."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor, nn

from bridge.carried import Carried
from bridge.component import Component, components
from bridge.compression import Compression, Done, Row, restore
from bridge.method import ComponentMethod, Method
from bridge.replace import check_finite, replaced, replaced_component
from bridge.sites import block_of, left_dense, linears, matching, place, show, standing
from bridge.spill import clear
from bridge.statistics import nothing
from bridge.stream import evaluating
from bridge.watch import Seen, TokenWeights, watch
from mech.blocks import decoder_blocks
from mech.errors import BadInput
from mech.ondisk import on_disk, resident
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
    spill: Path | None = None,
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
    the work; all of them call this with the same arguments. `spill` is a folder in which the
    carried stream waits, one batch of it in memory at a time; it is this run's alone.

    A model whose weights stay in its folder (`mech.ondisk`) is compressed with one block in memory:
    what is made of it goes into `shards`, without which it is refused, and the model is left as it
    was; `bridge.assembled` makes a checkpoint of the shards. Where a pass over the text runs out of
    memory it is made again with half the batches (`bridge.carried`; `Compression.halved`).

    Matrices that a family does not keep in linears (GPT-2's Conv1D, stacks of experts) are
    linears afterwards, until `restore`. What holds matrices and stays dense is in
    `Compression.left`.

    All or nothing: on any exception the model is as before. Raises BadInput, naming the linear,
    where a weight, a statistic or an output is not finite, where `select` or a name matches
    nothing, where a batch is empty or holds an id that the model has no embedding for, and
    where weights are negative or of another shape than the tokens. Where one sequence does not fit
    into memory that is a BadInput too.
    """
    away = on_disk(model)
    if away and shards is None:
        raise BadInput("a model on disk has no place for operators: pass `shards`, a folder")
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
        originals: dict[str, nn.Module] = {} if away else show(model, asked.linears)
        try:
            work = asked if away else _work(model, method, select)
            if not away:
                originals = {**work.linears, **originals}
                for name, linear in work.linears.items():
                    check_finite(linear.weight, f"{name}: its weight")
            walk = _Walk(model, work, shards, ranks, tell)
            rows = tuple(walk.rows(batches, token_weights, spill))
            complete = True
        finally:
            if not complete:
                place(model, originals)
            if spill is not None:
                clear(spill)
    tokens = sum(b.numel() for b in batches)
    gone = {row.name for row in rows}
    stood = show(model, asked.linears) if away else {}
    left = tuple(name for name in left_dense(model, select) if name not in gone)
    place(model, stood)
    return Compression(repr(method), rows, tokens, originals, left, walk.halved)


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

    def again(self, model: nn.Module, layer: int) -> "_Work":
        """`of`, with what stands in the model now."""
        here = self.of(layer)
        blocks = decoder_blocks(model)
        at = {n: blocks.get_submodule(n.removeprefix("layers.")) for n in here.linears}
        linears = {name: linear for name, linear in at.items() if isinstance(linear, nn.Linear)}
        return here._replace(linears=linears)


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


class _Walk:
    """The blocks in order: calibrated, replaced, run again for the inputs of the next."""

    def __init__(
        self,
        model: nn.Module,
        work: _Work,
        shards: Shards | None,
        ranks: Ranks | None,
        advance: Callable[[str], None],
    ) -> None:
        self.model, self.work, self.shards, self.ranks = model, work, shards, ranks
        self.advance, self.away, self.halved = advance, on_disk(model), 0
        self.layers = sorted({block_of(name) for name in work.linears})
        self.damaged: set[int] = set()  # told of already

    def rows(
        self,
        batches: Sequence[Int[Tensor, "_batch _seq"]],
        token_weights: TokenWeights | None,
        spill: Path | None,
    ) -> Iterator[Row]:
        found = self._found()
        if found is not None:  # nothing is calibrated: nothing has to run
            yield from found
            return
        if self.ranks is not None:
            batches = self.ranks.mine(batches)
            token_weights = None if token_weights is None else self.ranks.mine(token_weights)
        carried = Carried(self.model, batches, token_weights, spill)
        for layer, block in enumerate(decoder_blocks(self.model)[: self.layers[-1] + 1]):
            with resident(block), self._at_hand(layer) as here:
                if here.linears:
                    yield from self._replaced(here, layer, block, carried)
                carried.through(layer, block)
            self.halved = carried.halved

    def _found(self) -> list[Row] | None:
        """The rows where shards hold every block, put in place; else None."""
        if self.shards is None or not all(self.shards.holds(layer) for layer in self.layers):
            return None
        found: dict[str, Done] = {}
        for layer in self.layers:
            kept = self.shards.read(layer)
            if kept is None:
                self.damaged.add(layer)
                return None
            here = self.work.of(layer)
            _check_names(here, kept, layer)
            # Of a model on disk only the rows: all operators together may be too large.
            found |= {n: Done(d.operator if not self.away else here.linears[n], d.row)
                      for n, d in kept.items()}  # fmt: skip
        if not self.away:
            taken = _in_place(self.work.linears, found)
            place(self.model, {name: one.operator for name, one in taken.items()})
        for name in found:
            self.advance(name)
        return [one.row for one in found.values()]

    @contextmanager
    def _at_hand(self, layer: int) -> Iterator[_Work]:
        """The work of a block whose weights are in memory; on disk it is dense again after."""
        here = self.work.of(layer)
        if not self.away or not here.linears:
            yield here
            return
        stood = show(self.model, here.linears)
        try:
            here = self.work.again(self.model, layer)
            for name, linear in here.linears.items():
                check_finite(linear.weight, f"{name}: its weight")
            yield here
        finally:
            place(self.model, {**here.linears, **stood})

    def _replaced(
        self, here: _Work, layer: int, block: nn.Module, carried: Carried
    ) -> Iterator[Row]:
        lost = layer in self.damaged
        kept = None if self.shards is None or lost else self.shards.read(layer)
        if kept is None:
            done = self._block(here, layer, block, carried)
            if self.shards is not None:
                self.shards.write(layer, done)
                # What is read back stands: in memory laid out as it will be after a kill.
                done = _taken(here, self.shards.read(layer) or done, layer)
        else:
            done = _taken(here, kept, layer)
            for name in done:
                self.advance(name)
        place(self.model, {name: one.operator for name, one in done.items()})
        yield from (one.row for one in done.values())

    def _block(
        self, here: _Work, layer: int, block: nn.Module, carried: Carried
    ) -> dict[str, Done]:
        """Calibrate a dense block in one pass, and replace its linears."""
        method = here.component_method
        states, seen = carried.enough(
            lambda: _calibrated(here, layer, block, carried), f"layers.{layer}"
        )
        done: dict[str, Done] = {}
        if method is not None:
            moments = {name: state.moment for name, state in seen.items()}
            for component, state in zip(here.components, states, strict=True):
                done |= replaced_component(component, method, state, moments)
                self.advance(f"layers.{component.layer}: {component.kind}")
            return done
        if self.ranks is not None:
            seen = self.ranks.summed(seen)
        own = here.linears if self.ranks is None else self.ranks.dealt(here.linears)
        weighted = carried.token_weights is not None
        for name, linear in here.linears.items():
            if name in own:
                done[name] = replaced(
                    self.model, name, linear, here.methods[name], seen[name], weighted=weighted
                )
                self.advance(name)
        return done if self.ranks is None else self.ranks.shared(done, here.linears)


def _calibrated(
    here: _Work, layer: int, block: nn.Module, carried: Carried
) -> tuple[list[Any], dict[str, Seen]]:
    """One pass of a dense block: what the method watches, and what the linears read."""
    method = here.component_method
    statistics = {
        name: nothing if method else here.methods[name].statistic for name in here.linears
    }
    with ExitStack() as watching:
        states = [
            watching.enter_context(method.watch(component)) if method else None
            for component in here.components
        ]
        calls, weights = carried.calls(layer), carried.token_weights
        return states, watch(block, here.linears, statistics, carried.stream, calls, weights)


def _taken(work: _Work, kept: Mapping[str, Done], layer: int) -> dict[str, Done]:
    """What a shard holds of a block, in the format and place of its linears."""
    _check_names(work, kept, layer)
    return _in_place(work.linears, kept)


def _in_place(linears: Mapping[str, nn.Linear], kept: Mapping[str, Done]) -> dict[str, Done]:
    return {n: Done(standing(one.operator, linears[n]), one.row) for n, one in kept.items()}


def _check_names(work: _Work, kept: Mapping[str, Done], layer: int) -> None:
    unknown = set(kept) - set(work.linears)
    if unknown or (work.component_method is None and set(kept) != set(work.linears)):
        raise BadInput(f"layers.{layer}: the shard holds other linears than this run compresses")


def _check_weights(batches: Sequence[Tensor], token_weights: TokenWeights | None) -> None:
    if token_weights is None:
        return
    if [w.shape for w in token_weights] != [tokens.shape for tokens in batches]:
        raise BadInput("token weights: pass one tensor a batch, of the shape of its tokens")
    if not all(bool((w.isfinite() & (w >= 0)).all()) for w in token_weights):
        raise BadInput("token weights: finite and at least 0")
    if not any(bool((w > 0).any()) for w in token_weights):
        raise BadInput("token weights: all are 0")
