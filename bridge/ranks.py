"""One model over the processes of torch.distributed: batches split, moments summed, linears dealt.

Everything that crosses from rank to rank is a buffer of numbers or a line of JSON, in an order
that is fixed by the number of ranks alone, so that the same ranks give the same bytes again.
"""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bridge.compression import Done
from bridge.flat import poured, refilled
from bridge.parcel import unwrapped, wrapped
from bridge.watch import Seen
from mech.errors import BadInput
from mech.refusals import first_line

T = TypeVar("T")
SMALL = 2**20
"""Bytes below which moments travel together in one buffer."""


class Spent(NamedTuple):
    """What a rank did. `seconds`: since it joined; `waiting`: of these in collectives, its own
    sending and the wait for slower ranks together. `bytes`: of all buffers that it handed to
    collectives or was handed by them, each once, however the backend routes them. `linears`:
    how many it replaced.
    """

    rank: int
    seconds: float
    waiting: float
    bytes: int
    linears: int


class RankGone(BadInput):
    """Another rank does not answer: it died, or raised something of its own."""


class TorchRanks:
    """The processes of the default group of torch.distributed, as `compress(..., ranks=)` asks.

    gloo serves CPU tensors, nccl CUDA tensors; `device` is where this rank's buffers live.
    A rank that is gone ends every other one at its next collective, with a RankGone.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        """Raises BadInput where no process group was made."""
        if not dist.is_initialized():
            raise BadInput("there is no process group: start with --ranks, or under torchrun")
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.device = torch.device(device)
        self._begun, self._waited, self._bytes, self._linears = time.monotonic(), 0.0, 0, 0

    def mine(self, batches: Sequence[Any]) -> Sequence[Any]:
        """The rank-th of `size` runs of neighbours, of sizes that differ by one at most.

        Raises BadInput where there are fewer batches than ranks.
        """
        if len(batches) < self.size:
            raise BadInput(
                f"{len(batches)} calibration batches for {self.size} ranks: "
                "give each rank one at least, or take fewer ranks"
            )
        return batches[slice(*share(len(batches), self.rank, self.size))]

    def summed(self, seen: Mapping[str, Seen]) -> dict[str, Seen]:
        """Σ over ranks of every tensor and every count, field by field, in their own dtype.

        Linears that share a state on every rank share it afterwards, and it travels once. Raises
        BadInput, naming the linear, for a statistic that is no tuple of tensors and counts.
        """
        leading = self._leading(seen)
        leaders = list(dict.fromkeys(leading.values()))
        states: list[Any] = [state for name in leaders for state in seen[name]]
        for name in leaders:
            _check_sums(name, seen[name])
        counts = [x for state in states for x in state if not isinstance(x, Tensor)]
        summed = iter(self._added([torch.tensor(counts, dtype=torch.int64)])[0].tolist())
        totals = iter(self._added([x for state in states for x in state if isinstance(x, Tensor)]))
        again: list[Any] = [
            type(state)(*[next(totals) if isinstance(x, Tensor) else next(summed) for x in state])
            for state in states
        ]
        of = {name: Seen(*again[2 * i : 2 * i + 2]) for i, name in enumerate(leaders)}
        return {name: of[leader] for name, leader in leading.items()}

    def dealt(self, linears: Mapping[str, nn.Linear]) -> Collection[str]:
        """The largest first, each to the rank with least to do: the same deal on every rank."""
        hands = deal({name: tuple(one.weight.shape) for name, one in linears.items()}, self.size)
        self._linears += len(hands[self.rank])
        return hands[self.rank]

    def shared(self, done: Mapping[str, Done], linears: Mapping[str, nn.Linear]) -> dict[str, Done]:
        """Every rank's in turn to all others, as `bridge.serial` stores operators.

        What a rank made itself it takes back from its own parcel: memory is laid out alike
        everywhere.
        """
        content, held = wrapped(done)
        found: dict[str, Done] = {}
        for source in range(self.size):
            found |= unwrapped(*self.told((content, held), source))
        return {
            name: found[name]._replace(operator=found[name].operator.to(linear.weight.device))
            for name, linear in linears.items()
        }

    def told(
        self, what: tuple[Any, dict[str, Tensor]], source: int
    ) -> tuple[Any, dict[str, Tensor]]:
        """Plain JSON and named tensors of the rank `source`, on every rank; tensors on the CPU."""
        spec, flat = poured(*what) if self.rank == source else (b"", torch.empty(0))
        sizes = torch.tensor([len(spec), flat.nbytes], dtype=torch.int64, device=self.device)
        self._cast(sizes, source)
        lengths = [int(size) for size in sizes]
        if self.rank == source:
            buffers = [torch.frombuffer(bytearray(spec), dtype=torch.uint8), flat]
        else:
            buffers = [torch.zeros(length, dtype=torch.uint8) for length in lengths]
        buffers = [buffer.to(self.device) for buffer in buffers]
        for buffer in buffers:
            if len(buffer):
                self._cast(buffer, source)
        text, numbers = (buffer.cpu() for buffer in buffers)
        return refilled(text.numpy().tobytes(), numbers)

    def each(self, what: tuple[Any, dict[str, Tensor]]) -> list[tuple[Any, dict[str, Tensor]]]:
        """What every rank has, in the order of ranks, on every rank."""
        return [self.told(what, source) for source in range(self.size)]

    def spent(self) -> list[Spent]:
        """What every rank did until now, on every rank."""
        seconds = time.monotonic() - self._begun
        own = Spent(self.rank, seconds, self._waited, self._bytes, self._linears)
        return [Spent(**said) for said, _ in self.each((own._asdict(), {}))]

    def _leading(self, seen: Mapping[str, Seen]) -> dict[str, str]:
        """Of each linear, the first that shares its states on every rank."""
        own: dict[tuple[int, int], int] = {}
        labels = [
            own.setdefault((id(state.statistic), id(state.moment)), index)
            for index, state in enumerate(seen.values())
        ]
        first: dict[tuple[int, ...], str] = {}
        everywhere = zip(*(said for said, _ in self.each((labels, {}))), strict=True)
        return {
            name: first.setdefault(label, name)
            for name, label in zip(seen, everywhere, strict=True)
        }

    def _added(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Σ over ranks of each, of one dtype; small ones travel in one buffer."""
        uses = Counter(id(tensor) for tensor in tensors)
        found: list[Tensor] = [tensor.to(self.device) for tensor in tensors]
        small = [i for i, tensor in enumerate(found) if tensor.nbytes < SMALL]
        if small:
            together = torch.cat([found[i].reshape(-1) for i in small])
            self._sum(together)
            parts = together.split([found[i].numel() for i in small])
            for i, part in zip(small, parts, strict=True):
                found[i] = part.reshape(found[i].shape).clone()
        for i in sorted(set(range(len(found))) - set(small)):
            # In place, so that no moment is held twice; a state of several linears stays whole.
            alone = uses[id(tensors[i])] == 1 and found[i].is_contiguous()
            found[i] = found[i] if alone else found[i].contiguous().clone()
            self._sum(found[i])
        return found

    def _sum(self, tensor: Tensor) -> None:
        with self._together(tensor):
            dist.all_reduce(tensor)

    def _cast(self, tensor: Tensor, source: int) -> None:
        with self._together(tensor):
            dist.broadcast(tensor, source)

    @contextmanager
    def _together(self, tensor: Tensor) -> Iterator[None]:
        """Timed and counted; RankGone, one line, where another rank does not answer."""
        begun = time.monotonic()
        try:
            yield
        except RuntimeError as error:
            raise RankGone(
                f"rank {self.rank} of {self.size}: another rank is gone ({first_line(error)}); "
                "blocks that are done are kept where --shards says: run the same command again"
            ) from error
        self._waited += time.monotonic() - begun
        self._bytes += tensor.nbytes


def share(count: int, rank: int, size: int) -> tuple[int, int]:
    """Where the rank-th of `size` runs begins and ends; the first `count` mod `size` are longer."""
    least, more = divmod(count, size)
    begin = rank * least + min(rank, more)
    return begin, begin + least + (rank < more)


def deal(shapes: Mapping[str, tuple[int, ...]], size: int) -> list[list[str]]:
    """Names by rank: the costliest first, each to the rank whose sum is least (the lowest of them).

    cost = d_in² (d_out + d_in) of a shape (d_out, d_in): a factor of the second moment, and a
    sweep of the columns or a decomposition. No rank's sum exceeds 4/3 of the best deal's (Graham
    1969).
    """
    cost = {name: shape[1] ** 2 * sum(shape) for name, shape in shapes.items()}
    hands: list[list[str]] = [[] for _ in range(size)]
    loads = [0] * size
    for name in sorted(cost, key=lambda name: -cost[name]):  # stable: equal ones by depth
        least = loads.index(min(loads))
        hands[least].append(name)
        loads[least] += cost[name]
    return hands


def _check_sums(name: str, seen: Seen) -> None:
    for state in seen:
        fields = state if isinstance(state, tuple) and hasattr(state, "_fields") else None
        if fields is None or not all(isinstance(x, Tensor | int) for x in fields):
            raise BadInput(
                f"{name}: ranks add statistics field by field, and a {type(state).__name__} is no "
                "tuple of tensors and counts: compress with one rank"
            )
