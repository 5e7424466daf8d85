"""What a walk over the blocks leaves to others: who shares the work, and who keeps what is done."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor, nn

from bridge.compression import Done
from bridge.method import AnyMethod
from bridge.watch import Seen, TokenWeights


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
