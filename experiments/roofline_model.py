"""time = launch + max(bytes / bandwidth, instructions / issue rate)."""

import itertools
import json
import os
import subprocess
import sys
from typing import NamedTuple

import torch

from bridge.decode.plan import Setting
from ctr_kernels.sparse_gemv import Rows
from ctr_kernels.sparse_gemv.triton_plan import Plan, geometry, plan
from experiments.bench import sizes
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.roofline import Config, Result, Row
from mech.errors import BadInput

LAUNCH = 2.0  # µs, inside a CUDA graph
EFFICIENCY = 0.9
ASSUMED = tuple(itertools.product((0.8, 0.95), (1.0, 4.0)))
"""Corners: shares of the promised bandwidth, µs a launch."""
CACHE = 3.0  # times as fast as memory: where partial sums and x stay
GROUP = 128


class Gpu(NamedTuple):
    """Data sheet: bytes a second, multiprocessors, cycles a second at boost; 4 warps issue each.

    The clock is the one that the sheet's float32 rate implies: 38.7, 19.5 and 67 Tflops.
    """

    capability: int
    bandwidth: float
    processors: int
    clock: float


GPUS = {
    "A6000": Gpu(86, 768e9, 84, 1.80e9),
    "A100": Gpu(80, 2039e9, 108, 1.41e9),
    "H100": Gpu(90, 3350e9, 132, 1.98e9),
}
FORMATS = {"int8": torch.int8, "int4": torch.uint8}


class Work(NamedTuple):
    """Bytes from memory and from the cache, and row segments that a warp looks at."""

    memory: float
    cache: float
    segments: float


def answer(config: Config, progress: Progress) -> Result:
    """Compile for every GPU, then every product."""
    counts = {}
    with progress.task("compilations", len(config.gpus)) as advance:
        for gpu in config.gpus:
            counts[gpu] = instructions(GPUS[gpu].capability, config.dtypes)
            advance(gpu)
    rows = [
        _row(name, shape, dtype, Setting(s, config.alpha if s else 1.0), counts[name][dtype])
        for name, shape, dtype, s in itertools.product(
            config.gpus, config.shapes, config.dtypes, config.sparsities
        )
    ]
    return Result(config, Inputs(kernels={"sparse_gemv": "triton, compiled only"}), rows, counts)


def instructions(capability: int, dtypes: tuple[str, ...]) -> dict[str, float]:
    """Of a row segment, by format. In another process: the interpreter, where it is asked for,
    has no compiler.

    Raises:
        BadInput: Triton is missing, or cannot compile here.
    """
    target = json.dumps(["cuda", capability, 32])
    command = [sys.executable, "-m", "ctr_kernels.sparse_gemv.triton_cases", target, *dtypes]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    out = subprocess.run(command, capture_output=True, text=True, env=environment)
    if out.returncode:
        said = (out.stderr.strip().splitlines() or ["nothing said"])[-1]
        raise BadInput(f"Triton compiles nothing here ({said}): install triton, on Linux")
    return json.loads(out.stdout)


def _row(gpu: str, shape: str, dtype: str, setting: Setting, count: float) -> Row:
    d_out, d_in = sizes(shape)
    rows, factors = _rows(dtype, d_out, d_in)
    rank = setting.rank(d_out, d_in)
    kept = setting.channels(d_out, d_in)
    dense = Work(_weights(rows), 0, 0)
    work = _work(rows, factors, rank, kept, GPUS[gpu].processors)

    def both(efficiency: float, launch: float) -> tuple[float, float]:
        ours = launch + max(_moved(work, GPUS[gpu], efficiency), _issued(work, GPUS[gpu], count))
        return launch + _moved(dense, GPUS[gpu], efficiency), ours

    whole, ours = both(EFFICIENCY, LAUNCH)
    ratios = [a / b for a, b in (both(*assumed) for assumed in ASSUMED)]
    slow = _issued(work, GPUS[gpu], count) > _moved(work, GPUS[gpu], EFFICIENCY)
    bound = "instructions" if slow else "memory"
    return Row(
        gpu, shape, dtype, setting.sparsity, rank, whole, ours, whole / ours, min(ratios),
        max(ratios), bound,
    )  # fmt: skip


def _rows(dtype: str, d_out: int, d_in: int) -> tuple[Rows, int]:
    """Rows without numbers, and bytes of an entry of the factors."""
    kind = FORMATS.get(dtype) or getattr(torch, dtype)
    width = -(-d_out // 2) if dtype == "int4" else d_out
    values = torch.empty(d_in, width, dtype=kind, device="meta")
    if kind.is_floating_point:
        return Rows(values, d_out), values.element_size()
    groups = -(-d_in // GROUP) if dtype == "int4" else 1
    scales = torch.empty(groups, d_out, device="meta")
    zeros, group = (scales, GROUP) if dtype == "int4" else (None, 0)
    return Rows(values, d_out, scales, zeros, group), 2


def _weights(rows: Rows) -> float:
    return float(rows.d_in * rows.row_bytes + _grids(rows))


def _grids(rows: Rows) -> int:
    """Bytes of scales and zeros: read whole, whatever channels are left out."""
    return sum(grid.nbytes for grid in (rows.scales, rows.zeros) if grid is not None)


def _work(rows: Rows, factors: int, rank: int, kept: float, processors: int) -> Work:
    """What the kernel moves and looks at, cut as it cuts itself on that many processors."""
    shape = geometry(rows, factors, rank, 1)
    cut: Plan = plan(rows, rank, 1, shape, processors)
    memory = kept * rows.d_in * rows.row_bytes + _grids(rows) + 6 * rows.d_in
    memory += ((1 - kept) * rows.d_in + rows.d_out) * rank * factors
    # Written once and read once, in float32; x and thresholds once a block of outputs.
    parts = (cut.splits + cut.up_splits) * rows.d_out + cut.z_splits * rank
    cache = 8.0 * parts + 6.0 * rows.d_in * (cut.cols + cut.z_cols - 1)
    # A program looks at every channel, also at one that it does not read.
    low = cut.z_cols * rows.d_in / (shape.KZ / shape.K) + cut.cols * rank * shape.K / shape.KU
    return Work(memory, cache, cut.cols * rows.d_in + low)


def _moved(work: Work, gpu: Gpu, efficiency: float) -> float:
    return 1e6 * (work.memory + work.cache / CACHE) / (efficiency * gpu.bandwidth)


def _issued(work: Work, gpu: Gpu, count: float) -> float:
    return 1e6 * work.segments * count / (4 * gpu.processors * gpu.clock)
