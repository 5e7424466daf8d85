"""Do the ops read less, and are they faster by as much? Against the best dense product of torch."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from experiments.intervals import Interval
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section, Table
from experiments.settings import SEEDS, BadOption, between, some, within

LEAST, MOST = 1024, 2**30
"""Numbers of a weight: of smaller ones a pool would hold millions, larger ones fill a memory."""


@dataclass(frozen=True)
class Config:
    """Time sparse_gemv and rsparse_gemv in turn with every dense product that torch offers."""

    shapes: tuple[str, ...] = ("4096x4096", "11008x4096")
    """Outputs x inputs of a weight."""
    dtypes: tuple[Literal["float32", "bfloat16", "float16"], ...] = ("float32", "bfloat16")
    """Formats of weights and inputs."""
    sparsities: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
    """Shares of the channels that are left out."""
    threads: tuple[int, ...] = (1,)
    """Numbers of threads, for torch and for ours."""
    codes: tuple[Literal["int8", "int4"], ...] = ()
    """Rows of codes to time beside torch's int8 and int4 weight-only linears."""
    batch: int = 1
    """Rows of the input, 1 to 8, each with its own mask."""
    rank: int = 32
    """Of the low-rank term of rsparse_gemv; 0: not timed."""
    rounds: int = 60
    """Turns; ratios are medians over them."""
    pool: int = 384
    """Megabytes of different weights that take turns, so that none is found in a cache."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to run."""
    seed: int = 0
    """Of the numbers and of the order of turns."""


class Row(NamedTuple):
    """One op beside the fastest dense product. faster: dense seconds over ours, paired.

    kept: share of the channels read. added: seconds of rsparse_gemv over sparse_gemv, paired, and
    `bytes_added` what that ratio is in bytes; None without a low-rank term.
    """

    shape: str
    dtype: str
    threads: int
    sparsity: float
    kept: float
    backend: str
    dense: str
    faster: Interval
    added: Interval | None
    bytes_added: float


class CodeRow(NamedTuple):
    """Sparse rows of codes; int8, int4: seconds of torch's dense product over ours, paired."""

    shape: str
    codes: str
    threads: int
    sparsity: float
    kept: float
    backend: str
    int8: Interval
    int4: Interval


class Overhead(NamedTuple):
    """Seconds of a call of 64 x 64, nn.Linear's over ours; float32, one thread."""

    ratio: Interval


@dataclass(frozen=True)
class Result:
    """Rows, the overhead of a call, read bandwidth by threads in bytes a second, and calm.

    lost: share of the wall time, before and after, in which this process did not run although it
    only computed: on a machine that others use timings say little from a few hundredths on.
    """

    config: Config
    inputs: Inputs
    rows: list[Row]
    overhead: Overhead
    bandwidth: dict[int, float]
    lost: tuple[float, float]
    codes: tuple[CodeRow, ...] = ()


def run(config: Config, progress: Progress) -> Result:
    """Time everything.

    Raises:
        BadOption: an option that cannot be used.
    """
    for option in ("shapes", "dtypes", "sparsities", "threads"):
        some(option, getattr(config, option))
    for shape in config.shapes:
        sizes(shape)
    for sparsity in config.sparsities:
        within("sparsities", sparsity, 0, 0.999)
    for threads in config.threads:
        within("threads", threads, 1, 1024)
    within("batch", config.batch, 1, 8)
    within("rank", config.rank, 0, 4096)
    within("rounds", config.rounds, 3)
    between("pool", config.pool, 0, 2**20)
    within("seed", config.seed, 0, SEEDS)
    if config.codes:
        some("codes", config.codes)
    from experiments import bench_run

    return bench_run.answer(config, progress)


def sizes(shape: str) -> tuple[int, int]:
    """(outputs, inputs) of "4096x4096".

    Raises:
        BadOption: it is not of that form, or of a size that nothing can be timed at.
    """
    parts = shape.split("x")
    if len(parts) != 2 or not all(p.isdecimal() and int(p) > 0 for p in parts):
        raise BadOption(f"--shapes {shape}: give OUTPUTSxINPUTS, as 4096x4096")
    d_out, d_in = int(parts[0]), int(parts[1])
    if not LEAST <= d_out * d_in <= MOST:
        raise BadOption(f"--shapes {shape}: give weights of {LEAST} to 2^30 numbers")
    return d_out, d_in


def sections(result: Result) -> list[Section]:
    """The verdict and the tables."""
    texts = [_verdict(result), _around(result)]
    columns = (
        *("weight", "dtype", "threads", "left out", "times as fast [95%]", "of 1/(1-s)"),
        *("low rank adds [95%]", "bytes add", "dense is", "by"),
    )
    found = [Section("Sparse products beside dense ones", texts, [Table(columns, _cells(result))])]
    return found + ([_codes(result)] if result.codes else [])


def _codes(result: Result) -> Section:
    """Rows of codes beside torch's."""
    n = result.codes[0].int4.n
    slower = sum(r.int4.low < 1 for r in result.codes)
    text = (
        f"Rows of codes beside torch's dense weight-only products (the control; bfloat16 inputs, "
        f"int4 in groups of 128): {slower} of {len(result.codes)} settings are not clearly faster "
        f"than its int4. Medians of {n} paired turns with 95% bootstrap intervals."
    )
    columns = ("weight", "rows", "threads", "left out", "of int8 [95%]", "of int4 [95%]", "by")
    cells = [
        [
            *(r.shape, r.codes, str(r.threads), f"{1 - r.kept:.2f}", str(r.int8), str(r.int4)),
            r.backend,
        ]
        for r in result.codes
    ]
    return Section("Sparse codes beside dense ones", [text], [Table(columns, cells)])


def _verdict(result: Result) -> str:
    slower = [r for r in result.rows if r.faster.low < 1]
    reached = [r.faster.mean * r.kept for r in result.rows]
    n = result.rows[0].faster.n
    return (
        f"Beside the fastest dense product of torch (the control: equal weights, format and "
        f"threads), the ops reach {min(reached):.0%} to {max(reached):.0%} of 1/(1-s); "
        f"{len(slower)} of {len(result.rows)} settings are not clearly faster than dense. "
        f"Medians of {n} paired turns with 95% bootstrap intervals, weights from memory."
    )


def _around(result: Result) -> str:
    read = ", ".join(f"{b / 1e9:.1f} GB/s on {t}" for t, b in result.bandwidth.items())
    before, after = result.lost
    return (
        f"Read bandwidth while this ran: {read} thread(s). A call costs "
        f"1/{result.overhead.ratio} of an nn.Linear's (64 x 64). The process was kept from running "
        f"for {before:.1%} of the time before and {after:.1%} after: above 5% repeat the run."
    )


def _cells(result: Result) -> list[list[str]]:
    return [
        [
            *(r.shape, r.dtype, str(r.threads), f"{1 - r.kept:.2f}", str(r.faster)),
            f"{r.faster.mean * r.kept:.2f}",
            *(("-", "-") if r.added is None else (str(r.added), f"{r.bytes_added:.3f}")),
            *(r.dense, r.backend),
        ]
        for r in result.rows
    ]
