"""Shards of a run over ranks: rank 0 reads and writes them, the others are told."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from bridge.compression import Done
from bridge.parcel import unwrapped, wrapped
from bridge.ranks import TorchRanks
from bridge.shards import Shards
from mech.errors import BadInput

Told = tuple[Any, dict[str, Tensor]]


class RankShards:
    """The folder of rank 0 as all ranks see it; no other rank needs to reach it.

    Every method is a collective. What rank 0 refuses, all refuse, with its line.
    """

    def __init__(self, shards: Shards, ranks: TorchRanks) -> None:
        self._shards, self._ranks = shards, ranks
        self._written: int | None = None

    @contextmanager
    def running(
        self,
        model: nn.Module,
        method: Any,
        batches: Sequence[Int[Tensor, "_batch _seq"]],
        *,
        select: str = "*",
        token_weights: Sequence[Float[Tensor, "_batch _seq"]] | None = None,
    ) -> Iterator[None]:
        """As `Shards.running`; the fingerprint names the number of ranks."""
        with ExitStack() as stack:

            def enter() -> Told:
                run = self._shards.running(
                    model, method, batches, select=select, token_weights=token_weights
                )
                stack.enter_context(run)
                return None, {}

            self._led(enter)
            yield

    def holds(self, layer: int) -> bool:
        """Whether rank 0 has a file of the block."""
        return self._led(lambda: (self._shards.holds(layer), {}))[0]

    def read(self, layer: int) -> dict[str, Done] | None:
        """What stood in a block, on every rank; None where it is to be done.

        None also of the block that was written last: every rank holds it already, as it was
        stored (`TorchRanks.shared`).
        """
        if layer == self._written:
            return None

        def kept() -> Told:
            found = self._shards.read(layer)
            return (None, {}) if found is None else wrapped(found)

        linears, held = self._led(kept)
        return None if linears is None else unwrapped(linears, held)

    def write(self, layer: int, done: Mapping[str, Done]) -> None:
        """Keep a block, whole or not at all; no rank goes on before it is kept."""

        def keep() -> Told:
            self._shards.write(layer, done)
            return None, {}

        self._led(keep)
        self._written = layer

    def _led(self, ask: Callable[[], Told]) -> Told:
        """What rank 0 answers, on every rank."""
        content, held, refused = None, {}, None
        if self._ranks.rank == 0:
            try:
                content, held = ask()
            except (BadInput, OSError) as error:
                self._ranks.told(([str(error), None], {}), 0)
                raise
        (refused, content), held = self._ranks.told(([None, content], held), 0)
        if refused is not None:
            raise BadInput(refused)
        return content, held
