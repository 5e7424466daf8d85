"""What a compression left behind: a line for every linear, totals, and the way back."""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import nn

from bridge.budget import Cost
from bridge.operators import Operator
from bridge.sites import block_of, place

OTHER_COORDINATES = "in other coordinates"
"""In the note of a matrix that is only meant together with others: W - Ŵ says nothing of it."""


class Row(NamedTuple):
    """One linear.

    delta_w: ‖W - Ŵ‖²_F / parameters, the mean squared change of a weight.
    error: ‖(W - Ŵ) D‖_F / ‖W D‖_F with D = diag √E[x²], over the calibration tokens, no entry
    of D below 1e-4 of their median; ‖Ŵ‖_F where W = 0.
    seconds: wall time of the method on this linear.
    output_error: √ (tr E R Eᵀ / tr W R Wᵀ), E = W - Ŵ, R = E[x xᵀ] over those tokens; None where
    the method did not ask for R, or asked for a weighted one.
    note: what the method had to do beyond its formula; empty as a rule.
    """

    name: str
    shape: tuple[int, int]
    cost: Cost
    delta_w: float
    error: float
    seconds: float
    output_error: float | None = None
    note: str = ""

    @property
    def comparable(self) -> bool:
        """Whether W - Ŵ means something: not in the other coordinates that A3 gives heads."""
        return OTHER_COORDINATES not in self.note


class Done(NamedTuple):
    """What stands where a linear stood, and its line."""

    operator: Operator | nn.Linear
    row: Row


@dataclass(frozen=True)
class Compression:
    """The rows, in order of depth, and the linears that were replaced.

    `originals` holds the dense weights for `restore`; they stay in memory as long as it does.
    """

    method: str
    rows: tuple[Row, ...]
    tokens: int
    originals: dict[str, nn.Module] = field(repr=False)
    left: tuple[str, ...] = ()
    """Modules of the selection that hold matrices and stay dense: routers, and what is no linear
    or was not named."""
    halved: int = 0
    """How often a pass ran out of memory and was made again with half the batches."""

    @property
    def cost(self) -> Cost:
        """Of all compressed linears together."""
        first, *rest = (row.cost for row in self.rows)
        return sum(rest, start=first)

    @property
    def density(self) -> float:
        """Parameters kept / parameters, over all compressed linears."""
        return self.cost.density

    @property
    def block_delta_w(self) -> dict[int, float]:
        """Δ_W of each block: Σ ‖W - Ŵ‖²_F / Σ parameters over its compressed linears."""
        sums: dict[int, tuple[float, int]] = {}
        for row in self.rows:
            change, count = sums.get(block_of(row.name), (0.0, 0))
            parameters = row.cost.parameters
            sums[block_of(row.name)] = (change + row.delta_w * parameters, count + parameters)
        return {block: change / count for block, (change, count) in sums.items()}

    @property
    def delta_w(self) -> float:
        """Δ_W: the mean over blocks of `block_delta_w`."""
        blocks = self.block_delta_w.values()
        return sum(blocks) / len(blocks)

    @property
    def seconds(self) -> float:
        """Wall time of the method over all linears, calibration not counted."""
        return sum(row.seconds for row in self.rows)


def restore(model: nn.Module, compression: Compression) -> None:
    """Put the linears back that `compression` replaced, in place."""
    place(model, compression.originals)
