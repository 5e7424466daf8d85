"""The calibration text on its way through a model, from block boundary to block boundary."""

import gc
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jaxtyping import Int
from torch import Tensor, nn

from bridge.replace import check_finite
from bridge.spill import Spilled, clear
from bridge.stream import Call, Recording, Stream, passed, record
from bridge.watch import TokenWeights
from mech.errors import BadInput
from mech.memory import halves, no_room, out_of_memory
from mech.ondisk import give_back_what_is_freed, on_disk
from mech.refusals import first_line

R = TypeVar("R")


class Carried:
    """What every batch is before the next block, and how that block will be called.

    Where a pass over the batches runs out of memory, each is split in two and the pass is made
    again from the start of the block, down to one sequence: sums over tokens do not depend on how
    tokens are split, but for the rounding of the passes themselves. `halved` counts this.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Int[Tensor, "_batch _seq"]],
        token_weights: TokenWeights | None,
        spill: Path | None = None,
    ) -> None:
        """Record how `model` calls its blocks. Raises BadInput as `record` does."""
        self.model, self.halved = model, 0
        self._tokens: Sequence[Tensor] = list(batches)
        self.token_weights = None if token_weights is None else list(token_weights)
        self._spill = spill
        self._like: Recording | None = None
        self.stream: Sequence[Stream] = []
        self._calls: list[list[Call]] = []
        if spill is not None:
            clear(spill)  # of a run that was killed
        self.enough(self._record, "the dense model")

    def calls(self, layer: int) -> Sequence[Call]:
        """How the block is called for each batch."""
        return self._calls[layer]

    def through(self, layer: int, block: nn.Module) -> None:
        """Run a block as it stands. Raises BadInput where its output is not finite."""
        what = f"layers.{layer}"
        self.stream = self.enough(lambda: self._after(layer, block), what)
        # Masks and positions of a block that is done are dropped with its calls.
        self._calls[layer].clear()

    def enough(self, run: Callable[[], R], what: str) -> R:
        """run(), again with halves of the batches as long as memory does not do.

        Raises BadInput, one line naming `what`, where a batch of one sequence does not fit.
        """
        while True:
            try:
                return run()
            except Exception as error:
                if not out_of_memory(error):
                    raise
                said = first_line(error)
            # Here, and not in the clause: the error's frames hold what the pass had in memory.
            gc.collect()
            give_back_what_is_freed()
            self._halve(what, said)

    def _record(self) -> None:
        # On disk each real pass reads the folder: one is enough to check the blocks.
        some = self._tokens[:1] if on_disk(self.model) else self._tokens
        self.stream = self._kept(())
        found = record(self.model, some, self.stream)
        if len(some) < len(self._tokens):
            rest = passed(self.model, self._tokens[1:], found, self.stream)
            for own, others in zip(found.calls, rest.calls, strict=True):
                own.extend(others)
        self._like, self._calls = found, found.calls

    def _after(self, layer: int, block: nn.Module) -> Sequence[Stream]:
        def each():
            for call, resid in zip(self._calls[layer], self.stream, strict=True):
                after = call.replay(block, resid)
                check_finite(after, f"layers.{layer}: its output")
                yield after

        return self._kept(each())

    def _kept(self, stream: Any) -> Sequence[Stream]:
        return list(stream) if self._spill is None else Spilled(self._spill, stream)

    def _halve(self, what: str, said: str) -> None:
        if all(len(tokens) == 1 for tokens in self._tokens):
            raise no_room(what, max(tokens.shape[1] for tokens in self._tokens), said)
        parts = [halves(t) if len(t) > 1 else (t,) for t in self._tokens]
        sizes = [[len(part) for part in each] for each in parts]
        self._tokens = [part for each in parts for part in each]
        if self.token_weights is not None:
            self.token_weights = _split(self.token_weights, sizes)
        self.halved += 1
        if self._like is None:
            return
        if not self._like.passable:
            raise BadInput(
                f"{what}: not enough memory ({said}), and batches of a "
                f"{type(self.model).__name__} cannot be split on their way: give smaller batches"
            )
        done = [index for index, calls in enumerate(self._calls) if not calls]
        self.stream = self._kept(_split(self.stream, sizes))
        # Into nothing: the stream is where it is, only the calls are missing.
        self._calls = passed(self.model, self._tokens, self._like, deque(maxlen=0)).calls
        for index in done:
            self._calls[index].clear()


def _split(tensors: Sequence[Tensor], sizes: Sequence[Sequence[int]]) -> list[Tensor]:
    split = zip(tensors, sizes, strict=True)
    return [part for tensor, size in split for part in tensor.split(list(size))]
