"""`ctr bench --codes`: sparse rows of codes beside torch's own weight-only linears."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ctr_kernels.sparse_gemv import Rows, prepare
from ctr_kernels.sparse_gemv.pack import int4_rows, int8_rows
from experiments.bench import CodeRow, Config, sizes
from experiments.decoding.speed_timing import in_turn, median
from experiments.settings import BadOption

GROUP = 128
PACKS = {"int8": int8_rows, "int4": lambda weight: int4_rows(weight, GROUP)}


def timed(config: Config, shape: str, threads: int) -> Iterator[CodeRow]:
    """Every format and sparsity. Inputs are bfloat16: torch's products of float32 are slower."""
    d_out, d_in = sizes(shape)
    if d_in % GROUP or d_out % 64:
        raise BadOption(
            f"--codes with --shapes {shape}: torch's four-bit product takes outputs in multiples "
            f"of 64 and inputs in multiples of {GROUP}; give such a shape or leave --codes out"
        )
    generator = torch.Generator().manual_seed(config.seed)
    weight = torch.randn(d_out, d_in, generator=generator)
    x = torch.randn(1, d_in, generator=generator).bfloat16()
    ways = {"int8": _torch_int8(config, weight, x), "int4": _torch_int4(config, weight, x)}
    settings = list(itertools.product(config.codes, config.sparsities))
    packed = {code: _rolled(config, PACKS[code](weight)) for code in config.codes}
    kept, backends = {}, {}
    for code, sparsity in settings:
        t = float(x.float().abs().quantile(sparsity)) if sparsity else -1.0
        threshold = torch.full((d_in,), t)
        calls = [
            prepare(rows, threshold, threads=threads, x_dtype=x.dtype) for rows in packed[code]
        ]
        name = f"{code} rows {sparsity}"
        ways[name] = itertools.cycle([lambda call=call: call(x) for call in calls])
        kept[name] = float((x.float().abs() > t).float().mean())
        backends[name] = calls[0].backend
    turns: dict[str, Callable[[], object]] = {
        name: (lambda way=way: next(way)()) for name, way in ways.items()
    }
    in_turn(turns, 2, seed=config.seed)
    took = {n: np.array(t) for n, t in in_turn(turns, config.rounds, seed=config.seed).items()}
    for code, sparsity in settings:
        name = f"{code} rows {sparsity}"
        faster = {w: median(took[w] / took[name], seed=config.seed) for w in ("int8", "int4")}
        yield CodeRow(shape, code, threads, sparsity, kept[name], backends[name], **faster)


def _number(config: Config, nbytes: int) -> int:
    return max(2, -(-config.pool * 2**20 // nbytes))


def _rolled(config: Config, rows: Rows) -> list[Rows]:
    """Different weights of the same size; the same scales."""
    return [
        Rows(rows.values.roll(i, 0).contiguous(), rows.d_out, rows.scales, rows.zeros, rows.group)
        for i in range(_number(config, rows.values.nbytes))
    ]


Calls = Iterator[Callable[[], object]]


def _torch_int8(config: Config, weight: Tensor, x: Tensor) -> Calls:
    scales = (weight.abs().amax(1) / 127).to(x.dtype)
    codes = torch.round(weight / scales.float()[:, None]).clamp_(-127, 127).to(torch.int8)
    pool = [codes.roll(i, 0).contiguous() for i in range(_number(config, codes.nbytes))]
    return itertools.cycle(
        [lambda w=w: torch.ops.aten._weight_int8pack_mm(x, w, scales) for w in pool]
    )


def _torch_int4(config: Config, weight: Tensor, x: Tensor) -> Calls:
    rows = int4_rows(weight, GROUP)
    assert rows.scales is not None
    codes = torch.cat([rows.values & 15, rows.values >> 4], 1).mT.contiguous().to(torch.int32)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    # torch: s (c - 8) + z
    shift = torch.zeros_like(rows.scales) if rows.zeros is None else 8 - rows.zeros
    grid = torch.stack([rows.scales, shift * rows.scales], -1).to(x.dtype)
    pool = [packed.roll(i, 0).contiguous() for i in range(_number(config, packed.nbytes))]
    return itertools.cycle(
        [lambda w=w: torch.ops.aten._weight_int4pack_mm_for_cpu(x, w, GROUP, grid) for w in pool]
    )
