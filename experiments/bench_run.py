"""The timings of `ctr bench`."""

import itertools
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ctr_kernels.sparse_gemv import Prepared, Rows, prepare
from experiments.bench import Config, Overhead, Result, Row, sizes
from experiments.bench_codes import timed
from experiments.decoding.speed_timing import bandwidth, in_turn, median
from experiments.intervals import Interval
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.settings import BadOption

Way = Callable[[], object]
CALLS = 400
GAP = 50e-6  # a clock that is read all the time moves on in far smaller steps


def answer(config: Config, progress: Progress) -> Result:
    """Every shape, format and number of threads."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise BadOption("--device cuda: torch finds no GPU; give --device cpu")
    given = torch.get_num_threads()
    cases = list(itertools.product(config.shapes, config.dtypes, config.threads))
    rows: list[Row] = []
    read: dict[int, float] = {}
    try:
        before = lost()
        for threads in config.threads:
            torch.set_num_threads(threads)
            read[threads] = bandwidth()
        with progress.task("timings", len(cases)) as advance, torch.inference_mode():
            for shape, dtype, threads in cases:
                torch.set_num_threads(threads)
                rows += _rows(config, shape, dtype, threads)
                advance(f"{shape} {dtype} {threads}")
            codes = []
            for shape, threads in itertools.product(config.shapes, config.threads):
                if config.codes:
                    torch.set_num_threads(threads)
                    codes += timed(config, shape, threads)
        torch.set_num_threads(1)
        overhead = Overhead(_overhead())
    finally:
        torch.set_num_threads(given)
    kernels = {f"{r.shape} {r.dtype}": r.backend for r in rows}
    inputs = Inputs(device=config.device, threads=max(config.threads), kernels=kernels)
    return Result(config, inputs, rows, overhead, read, (before, lost()), tuple(codes))


def lost(seconds: float = 0.3) -> float:
    """Share of the time in which a loop that does nothing but read the clock was not run."""
    started = last = time.perf_counter()
    gone = 0.0
    while last - started < seconds:
        now = time.perf_counter()
        gone += now - last if now - last > GAP else 0
        last = now
    return gone / seconds


def _rows(config: Config, shape: str, dtype: str, threads: int) -> Iterator[Row]:
    d_out, d_in = sizes(shape)
    kind = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(config.seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator).to(config.device, kind)

    x, base = normal(config.batch, d_in), normal(d_in, d_out)
    number = max(2, -(-config.pool * 2**20 // (base.numel() * base.element_size())))
    pool = [base.roll(i, 0).contiguous() for i in range(number)]
    factors = (normal(d_in, config.rank), normal(config.rank, d_out)) if config.rank else None
    ways: dict[str, list[Way]] = _dense(x, pool)
    products: dict[float, tuple[Prepared, float]] = {}
    for s in config.sparsities:
        t = _threshold(x, s)
        plain = [prepare(Rows(w, d_out), t, threads=threads, x_dtype=kind) for w in pool]
        ways[f"{s}"] = [_call(p, x) for p in plain]
        # Channels that any row of the batch keeps are read.
        products[s] = plain[0], float((x.float().abs() > t).any(0).float().mean())
        if factors is not None:
            low = [prepare(Rows(w, d_out), t, *factors, threads=threads) for w in pool]
            ways[f"{s} low rank"] = [_call(p, x) for p in low]
    took = {name: np.array(t) for name, t in _in_turn(config, ways).items()}
    dense = min(_dense(x, pool[:1]), key=lambda name: float(np.median(took[name])))
    for s, (product, kept) in products.items():
        added, more = None, 0.0
        if factors is not None:
            added = median(took[f"{s} low rank"] / took[f"{s}"], seed=config.seed)
            left = 1 - kept if config.batch == 1 else 1.0
            extra = config.rank * (left * d_in + d_out)
            more = 1 + extra / max(kept * d_in * d_out, 1)
        faster = median(took[dense] / took[f"{s}"], seed=config.seed)
        ours = product.backend
        yield Row(shape, dtype, threads, s, kept, ours, dense, faster, added, more)


def _call(product: Prepared, x: Tensor) -> Way:
    return lambda: product(x)


def _threshold(x: Tensor, sparsity: float) -> Tensor:
    """One number for all channels; below every magnitude where none is left out."""
    size = x.float().abs().flatten()
    t = float(size.quantile(sparsity)) if sparsity else -1.0
    return torch.full((x.shape[1],), t, device=x.device)


def _dense(x: Tensor, pool: list[Tensor]) -> dict[str, list[Way]]:
    """x W of every kind: torch's usual layout, and ours, one input channel after the other."""
    usual = [w.mT.contiguous() for w in pool]
    ways: dict[str, list[Way]] = {
        "F.linear": [lambda w=w: F.linear(x, w) for w in usual],
        "x @ rows": [lambda w=w: x @ w for w in pool],
    }
    if len(x) == 1:
        ways["mv"] = [lambda w=w: torch.mv(w, x[0]) for w in usual]
    if x.device.type == "cpu" and torch.backends.mkldnn.is_available():
        try:
            packed = [torch.ops.mkldnn._reorder_linear_weight(w, len(x)) for w in usual]
            torch.ops.mkldnn._linear_pointwise(x, packed[0], None, "none", [], "")
        except RuntimeError:  # not in this format on this processor
            return ways
        ways["packed"] = [
            lambda w=w: torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")
            for w in packed
        ]
    return ways


def _in_turn(config: Config, ways: dict[str, list[Way]]) -> dict[str, list[float]]:
    """Every way, and every time with the next weight of the pool."""
    turns = {name: itertools.cycle(calls) for name, calls in ways.items()}

    def once(name: str) -> None:
        next(turns[name])()
        if config.device == "cuda":
            torch.cuda.synchronize()

    calls = {name: (lambda name=name: once(name)) for name in ways}
    in_turn(calls, 2, seed=config.seed)
    return in_turn(calls, config.rounds, seed=config.seed)


def _overhead() -> Interval:
    """Calls of a product so small that it costs nothing."""
    linear = torch.nn.Linear(64, 64, bias=False)
    product = prepare(Rows(linear.weight.detach().mT.contiguous(), 64), torch.zeros(64), threads=1)
    x = torch.randn(1, 64)
    with torch.inference_mode():
        took = in_turn({"linear": lambda: linear(x), "ours": lambda: product(x)}, CALLS)
    return median(np.array(took["linear"]) / np.array(took["ours"]))
