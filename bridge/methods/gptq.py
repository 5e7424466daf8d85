"""GPTQ: quantisation that mends what it leaves (Frantar et al. 2022, arXiv:2210.17323)."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bridge.methods.rounding import FOUR_BITS
from bridge.moments import factor
from bridge.operators import LinearOperator, Weight
from bridge.quantizers import Grid, Quantizer, grouped
from bridge.statistics import SecondMoment, Statistic, second_moment
from mech.errors import BadInput

Columns = Float[Tensor, "columns d_out"]
Triangle = Float[Tensor, "columns columns"]

# Columns that are rounded one by one, before a matrix product carries their errors on.
LEAF = 8


@dataclass(frozen=True)
class GPTQ:
    """Round from left to right; the columns still ahead make up for every rounding.

    With UᵀU = (R + λ mean(diag R) I)⁻¹, U upper triangular: for each column j, ŵ = its nearest
    value on the grid, e = (w_j - ŵ) / U_jj, and w_k -= e U_jk for every k > j. The grid of a group
    is that of its columns as they are when the first of them is reached.

    `act_order` takes the columns by falling R_jj; groups stay those of consecutive columns, with
    the grids of the untouched weight (the release's static groups), so that no order has to be
    stored. Columns of dead channels are rounded like any other and pass nothing on; the release
    sets them to zero. Arithmetic is in float64: a code then is the plain loop's.
    Raises BadInput where `block` is below one.
    """

    quantizer: Quantizer = FOUR_BITS
    """The grid: RoundToNearest or MXINT, with bits and group."""
    act_order: bool = False
    """Columns by falling E[x_j²] instead of from left to right."""
    damping: float = 0.01
    """λ, raised until R factors (see `bridge.moments`)."""
    block: int = 128
    """Columns at a time where no group says how many."""
    statistic: ClassVar[Statistic[SecondMoment]] = second_moment

    def __post_init__(self):
        if self.block < 1:
            raise BadInput(f"block {self.block}: at least one column")

    def __call__(self, weight: Weight, seen: SecondMoment) -> LinearOperator:
        moment = seen.mean.to(weight.device)
        order = torch.arange(len(moment), device=weight.device)
        if self.act_order:
            order = moment.diagonal().argsort(descending=True, stable=True)
        found = factor(moment[order][:, order], self.damping)
        # Transposed: a column is contiguous.
        columns = weight.detach().double().mT[order].contiguous()
        codes, grids = self._swept(columns, found.inverse_upper, order, weight)
        back = codes[order.argsort()].mT.to(torch.uint8).contiguous()
        grid = grids._replace(scale=grids.scale.mT[..., None], zero=grids.zero.mT[..., None])
        operator = self.quantizer.stored(back, grid, weight.dtype)
        operator.note = found.note
        return operator

    def _swept(
        self, columns: Columns, upper: Triangle, order: Int[Tensor, " d_in"], weight: Weight
    ) -> tuple[Columns, Grid]:
        """Codes of all columns, in `order`, and the grids, one row a group."""
        grids = self._grids(weight)
        group = self.quantizer.group or len(order)
        moving = not self.act_order and self.quantizer.group is not None
        size = group if moving else self.block
        codes, errors = torch.zeros_like(columns), torch.zeros_like(columns)
        for start in range(0, len(order), size):
            here = slice(start, start + size)
            # All that the columns before have left to these, in one product.
            columns[here].addmm_(upper[:start, here].mT, errors[:start], alpha=-1)
            if moving:
                fresh = self.quantizer.grid(columns[here].mT[:, None], weight.dtype)
                grids.scale[start // group] = fresh.scale.flatten()
                grids.zero[start // group] = fresh.zero.flatten()
            _sweep(
                _Some(columns[here], codes[here], errors[here], upper[here, here]),
                grids,
                order[here].div(group, rounding_mode="floor").tolist(),
            )
        return codes, grids

    def _grids(self, weight: Weight) -> Grid:
        """Of the untouched weight, one row a group."""
        values = grouped(weight.detach().double(), self.quantizer.group)
        grid = self.quantizer.grid(values, weight.dtype)
        scale, zero = (part.squeeze(-1).mT.contiguous() for part in (grid.scale, grid.zero))
        return grid._replace(scale=scale, zero=zero)


class _Some(NamedTuple):
    """Some consecutive columns: views of the weights, of their codes, of e, and of U."""

    columns: Columns
    codes: Columns
    errors: Columns
    upper: Triangle

    def part(self, start: int, stop: int) -> "_Some":
        here = slice(start, stop)
        return _Some(
            self.columns[here], self.codes[here], self.errors[here], self.upper[here, here]
        )


def _sweep(some: _Some, grids: Grid, groups: list[int]) -> None:
    """Left half, its errors into the right half, right half."""
    width = len(some.columns)
    if width <= LEAF:
        _leaf(some, grids, groups)
        return
    half = width // 2
    _sweep(some.part(0, half), grids, groups[:half])
    some.columns[half:].addmm_(some.upper[:half, half:].mT, some.errors[:half], alpha=-1)
    _sweep(some.part(half, width), grids, groups[half:])


def _leaf(some: _Some, grids: Grid, groups: list[int]) -> None:
    """Column by column: what those before it have left is added when it is reached."""
    inverse = (1 / some.upper.diagonal()).tolist()
    for j, (column, group) in enumerate(zip(some.columns, groups, strict=True)):
        if j:
            column.addmv_(some.errors[:j].mT, some.upper[:j, j], alpha=-1)
        grid = grids._replace(scale=grids.scale[group], zero=grids.zero[group])
        codes = grid.nearest(column)
        some.codes[j] = codes
        torch.sub(column, grid.value(codes), out=some.errors[j])
        some.errors[j].mul_(inverse[j])
