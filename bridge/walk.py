"""The blocks of a model in order: calibrated, replaced, run again for the inputs of the next."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn

from bridge.carried import Carried
from bridge.compression import Done, Row
from bridge.replace import check_finite, replaced, replaced_component
from bridge.seams import Ranks, Shards
from bridge.sites import block_of, place, show, standing
from bridge.statistics import nothing
from bridge.watch import Seen, TokenWeights, watch
from bridge.work import Work
from mech.blocks import decoder_blocks
from mech.errors import BadInput
from mech.ondisk import on_disk, resident


class Walk:
    """One pass of a compression over a model; `advance` hears of every linear that is done."""

    def __init__(
        self,
        model: nn.Module,
        work: Work,
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
        """What was done to each linear, a block at a time; all from the shards where they hold all.

        Of the batches, (batch, seq) each, a rank reads its own; the stream waits in `spill`.
        """
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
    def _at_hand(self, layer: int) -> Iterator[Work]:
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
        self, here: Work, layer: int, block: nn.Module, carried: Carried
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

    def _block(self, here: Work, layer: int, block: nn.Module, carried: Carried) -> dict[str, Done]:
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
    here: Work, layer: int, block: nn.Module, carried: Carried
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


def _taken(work: Work, kept: Mapping[str, Done], layer: int) -> dict[str, Done]:
    """What a shard holds of a block, in the format and place of its linears."""
    _check_names(work, kept, layer)
    return _in_place(work.linears, kept)


def _in_place(linears: Mapping[str, nn.Linear], kept: Mapping[str, Done]) -> dict[str, Done]:
    return {n: Done(standing(one.operator, linears[n]), one.row) for n, one in kept.items()}


def _check_names(work: Work, kept: Mapping[str, Done], layer: int) -> None:
    unknown = set(kept) - set(work.linears)
    if unknown or (work.component_method is None and set(kept) != set(work.linears)):
        raise BadInput(f"layers.{layer}: the shard holds other linears than this run compresses")
