"""What could the Triton kernel gain on GPUs that are not here? A model on paper, from counts."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Section, Table
from experiments.settings import some, within


@dataclass(frozen=True)
class Config:
    """Bytes and instructions of dense and sparse products over what data sheets promise."""

    gpus: tuple[Literal["A6000", "A100", "H100"], ...] = ("A6000", "A100", "H100")
    """NVIDIA's RTX A6000, A100 SXM 80 GB, H100 SXM."""
    shapes: tuple[str, ...] = ("4096x4096", "11008x4096", "4096x11008", "2048x2048")
    """Outputs x inputs of a weight."""
    dtypes: tuple[Literal["float32", "float16", "bfloat16", "int8", "int4"], ...] = (
        "float16",
        "int8",
        "int4",
    )
    """Formats of the weights; factors and inputs are float16 beside codes."""
    sparsities: tuple[float, ...] = (0.0, 0.5, 0.7)
    """Shares of a dense weight's bytes that are not read; 0 is the control."""
    alpha: float = 0.95
    """Share of what is read that is channels; the rest is the low-rank part (R-Sparse's ρ)."""


class Row(NamedTuple):
    """One product, in microseconds; dense in the same format. bound: what limits the sparse one.

    low, high: the ratio over 80 to 95% of the promised bandwidth and 1 to 4 µs a launch.
    """

    gpu: str
    shape: str
    dtype: str
    sparsity: float
    rank: int
    dense: float
    sparse: float
    ratio: float
    low: float
    high: float
    bound: str


@dataclass(frozen=True)
class Result:
    """Rows, and instructions that a warp issues for a row segment by GPU and format."""

    config: Config
    inputs: Inputs
    rows: list[Row]
    instructions: dict[str, dict[str, float]]


def run(config: Config, progress: Progress) -> Result:
    """Compile for every GPU, count, divide.

    Raises:
        BadOption: an option that cannot be used.
        BadInput: the compiler is missing.
    """
    for option in ("gpus", "shapes", "dtypes", "sparsities"):
        some(option, getattr(config, option))
    for sparsity in config.sparsities:
        within("sparsities", sparsity, 0, 0.99)
    within("alpha", config.alpha, 0, 1)
    from experiments import roofline_model

    return roofline_model.answer(config, progress)


def sections(result: Result) -> list[Section]:
    """The verdict, the products, the counts."""
    columns = ["GPU", "weight", "format", "not read", "rank", "dense µs", "sparse µs"]
    columns += ["times as fast [over the assumptions]", "of 1/(1-s)", "limited by"]
    cells = [
        [row.gpu, row.shape, row.dtype, f"{row.sparsity:.0%}", str(row.rank), f"{row.dense:.1f}",
         f"{row.sparse:.1f}", f"{row.ratio:.2f} [{row.low:.2f}, {row.high:.2f}]",
         f"{row.ratio * (1 - row.sparsity):.0%}", row.bound]
        for row in result.rows
    ]  # fmt: skip
    counts = [
        [gpu, name, f"{count:.0f}"]
        for gpu, each in result.instructions.items()
        for name, count in each.items()
    ]
    tables = [
        Table(columns, cells, "Dense: the same bytes' worth of weights in the same format."),
        Table(["GPU", "format", "instructions a row segment of a warp"], counts),
    ]
    return [Section("A roofline of the Triton kernel: a model", [_verdict(result)], tables)]


def _verdict(result: Result) -> str:
    said = "This is a model: nothing was run on a GPU, and n is the number of products."
    for sparsity in result.config.sparsities:
        rows = [row for row in result.rows if row.sparsity == sparsity]
        ratios = [row.ratio for row in rows]
        limited = sum(row.bound == "instructions" for row in rows)
        said += (
            f" {sparsity:.0%} not read{' (the control)' * (sparsity == 0)}: "
            f"{min(ratios):.2f} to {max(ratios):.2f} times dense, [{min(r.low for r in rows):.2f}, "
            f"{max(r.high for r in rows):.2f}] over the assumptions (n = {len(rows)}, "
            f"{limited} limited by instructions)."
        )
    return said
