"""Every linear quantised and mended every way, from what the dense model's linears read."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from bridge.operators import Dense, LinearOperator, LowRank, Weight
from bridge.quantizers import MXINT, RoundToNearest
from bridge.sites import linears
from bridge.toggle import swap
from experiments import measure
from experiments import reconstruction_rows as ways
from experiments.parts.work import Work
from experiments.progress import Progress

RICHER = ways.RICHER
FACTOR = 16  # bits of a number of a low-rank term, as the papers count
Grid = RoundToNearest | MXINT
Operators = Mapping[str, LinearOperator]


def quantizer(grid: str, bits: int, group: int) -> Grid:
    """mxint: scales that are powers of two; nearest: scales of floats. Raises BadInput."""
    return MXINT(bits, group) if grid == "mxint" else RoundToNearest(bits, group)


def mended(
    work: Work, grid: Grid, rank: int, names: Sequence[str], select: str, progress: Progress
) -> dict[str, dict[str, LinearOperator]]:
    """By way and linear, fitted to the dense model in one pass, as QERA's authors do it.

    RICHER is rounding with the most bits that take no more storage than a low-rank term of
    16-bit numbers does. Raises BadInput where nothing matches.
    """
    chosen = linears(work.loaded.model, select)
    methods = {name: way for name, way in ways.methods(grid, rank).items() if name in names}
    found: dict[str, dict[str, LinearOperator]] = {name: {} for name in names}
    batches = {"fitted": work.calibration.split(measure.AT_ONCE)}
    with progress.task("quantise and mend", len(chosen)) as advance:
        for read in ways.walk(work.loaded.model, chosen, batches):
            for name, seen in read["fitted"].items():
                weight = chosen[name].weight.detach()
                for way, method in methods.items():
                    found[way][name] = method(weight, ways.seen_by(method, seen))
                if RICHER in names:
                    found[RICHER][name] = _richer(weight, grid, rank)
                advance(name)
    return found


def _richer(weight: Weight, grid: Grid, rank: int) -> LinearOperator:
    most = grid(weight).bits() + FACTOR * rank * sum(weight.shape)
    options = (replace(grid, bits=bits)(weight) for bits in range(8, grid.bits, -1))
    return next((option for option in options if option.bits() <= most), grid(weight))


@contextmanager
def standing(model: nn.Module, operators: Operators) -> Iterator[None]:
    """The matrices of the operators stand in the model inside, as dense ones: quick to apply."""
    with swap(model, {name: Dense(operator.dense()) for name, operator in operators.items()}):
        yield


def bits(operators: Operators) -> float:
    """Mean bits a weight: codes and scales as stored, numbers of a low-rank term in 16 bits."""
    total = count = 0
    for operator in operators.values():
        terms = [m for m in operator.modules() if isinstance(m, LowRank)]
        stored = sum(term.bits() for term in terms)
        total += operator.bits() - stored + FACTOR * sum(t.parameters_kept() for t in terms)
        count += operator.shape[0] * operator.shape[1]
    return total / count
