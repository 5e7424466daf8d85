"""How a product is cut into items, and the memory that its programs share."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ctr_kernels.sparse_gemv.rows import Rows

WARPS = 4
# Rows asked for, a warp, before the first arrives: eight programs of a multiprocessor then wait for
# 64 KiB where nothing is sparse, which is twice what its share of any GPU's bandwidth needs.
AHEAD = 4
# Programs a multiprocessor: enough bytes in flight, and the last ones leave little of it idle.
WAVES = 4


class Geometry(NamedTuple):
    """What the kernel is compiled for. B: rows of the batch that a program serves; U: rows of the
    matrix ahead; K, N: rows and columns of one tile of W; KZ, NZ and KU, N: of `down` and `up`."""

    B: int
    U: int
    K: int
    N: int
    KZ: int
    NZ: int
    KU: int


def geometry(rows: Rows, factors: int, rank: int, batch: int, lanes: int = 32) -> Geometry:
    """Tiles in which every thread reads 16 bytes at once and a warp one row of W.

    `factors`: bytes of an entry of `down` and `up`; `lanes`: threads of a warp. A program holds
    B sums an output in registers (`tests/kernels/test_compiles.py`): few columns a thread allow
    more of the batch.
    """
    size = rows.values.element_size()
    tile = WARPS * lanes * 16
    n = lanes * 16 // size
    codes = rows.values.dtype == torch.uint8
    most = 1 if codes else 4
    b = min(_power(batch), most)
    nz = min(max(_power(rank), 16), lanes * 16 // factors)
    return Geometry(
        B=b,
        # Of two rows of int8 at once the compiler spills 8 bytes, of four none.
        U=AHEAD if size == 1 and b == 2 else max(AHEAD // b, 2),
        K=tile // size // n,
        N=n,
        KZ=tile // factors // nz,
        NZ=nz,
        KU=max(tile // factors // n, 1),
    )


class Plan(NamedTuple):
    """Items: blocks of the batch, times columns of blocks, times shares of the channels."""

    blocks: int
    cols: int
    splits: int
    chunk: int
    z_cols: int
    z_splits: int
    z_chunk: int
    up_splits: int
    up_chunk: int

    @property
    def programs(self) -> int:
        """One an item."""
        outputs = self.cols * (self.splits + self.up_splits)
        return self.blocks * (outputs + self.z_cols * self.z_splits)

    @property
    def counters(self) -> int:
        """Three, and one a block of z and of outputs."""
        return 3 + self.z_cols + self.cols


def plan(rows: Rows, rank: int, batch: int, shape: Geometry, processors: int) -> Plan:
    """Shares of the channels such that every multiprocessor has `WAVES` programs to run."""
    step = shape.K * shape.U
    cols = _parts(rows.values.shape[1], shape.N)
    blocks = _parts(batch, shape.B)
    wanted = max(_parts(WAVES * processors, cols * blocks), 1)
    chunk = _parts(_parts(rows.d_in, wanted), step) * step
    z_chunk, up_chunk = shape.KZ * shape.U, shape.KU * shape.U
    return Plan(
        blocks=blocks,
        cols=cols,
        splits=_parts(rows.d_in, chunk),
        chunk=chunk,
        z_cols=_parts(rank, shape.NZ),
        z_splits=_parts(rows.d_in, z_chunk) if rank else 0,
        z_chunk=z_chunk,
        up_splits=_parts(rank, up_chunk),
        up_chunk=up_chunk,
    )


class Workspace:
    """Counters and partial sums of launches that do not overlap; a launch leaves zeros behind.

    Zeros are what a launch expects of the counters and, where it adds by atomics, of the sums.
    """

    def __init__(self, device: torch.device):
        self.state = torch.zeros(0, dtype=torch.int32, device=device)
        self._floats: dict[str, Tensor] = {}

    def counters(self, count: int) -> Tensor:
        """At least `count` of them."""
        if len(self.state) < count:
            self.state = torch.zeros(count, dtype=torch.int32, device=self.state.device)
        return self.state

    def floats(self, name: str, count: int, *, zero: bool) -> Tensor:
        """At least `count` under that name; kept apart by whether they have to be zero."""
        key = f"{name} {zero}"
        if key not in self._floats or len(self._floats[key]) < count:
            make = torch.zeros if zero else torch.empty
            self._floats[key] = make(count, dtype=torch.float32, device=self.state.device)
        return self._floats[key]


_shared: dict[tuple[torch.device, int], Workspace] = {}


def workspace(device: torch.device) -> Workspace:
    """That of the current stream, whose launches follow one another.

    While a CUDA graph is recorded, a new one: its zeros are recorded with it, and no replay meets
    a launch of another stream in the same memory.
    """
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return Workspace(device)
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    if (device, stream) not in _shared:
        _shared[device, stream] = Workspace(device)
    return _shared[device, stream]


@lru_cache
def processors(device: torch.device) -> tuple[int, int]:
    """(multiprocessors, threads of a warp); one and 32 for the interpreter."""
    if device.type != "cuda":
        return 1, 32
    properties = torch.cuda.get_device_properties(device)
    return properties.multi_processor_count, getattr(properties, "warp_size", 32)


def _power(count: int) -> int:
    return 1 << max(count - 1, 0).bit_length()


def _parts(whole: int, part: int) -> int:
    return -(-whole // part)
