"""SparseGPT: pruning that mends what it leaves (Frantar and Alistarh 2023, arXiv:2301.00774)."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bridge.moments import factor
from bridge.operators import LinearOperator, Sparse, Weight
from bridge.patterns import LayerWise, Mask, NOfM, Pattern, Score
from bridge.statistics import SecondMoment, Statistic, second_moment
from mech.errors import BadInput

HALF = LayerWise(0.5)
Columns = Float[Tensor, "columns d_out"]
Kept = Bool[Tensor, "columns d_out"]
Triangle = Float[Tensor, "columns columns"]

# Columns that are pruned one by one, before a matrix product carries their changes on.
LEAF = 8


@dataclass(frozen=True)
class SparseGPT:
    """Prune W from left to right; columns still ahead make up for every weight that goes.

    With UᵀU = (R + λ mean(diag R) I)⁻¹, U upper triangular, in blocks of B columns: the pattern
    keeps the largest W_ij² / U_jj² of the block (N:M: of every group, with the weights as they
    are when the group is reached). Then for each column j, with q = W_:j where it is kept and 0
    elsewhere: e = (W_:j - q) / U_jj and W_:,k -= e U_jk for every k > j. The weights of dead
    channels go first. Exactly as many are kept in each block as the pattern keeps of a matrix of
    the block's shape. Arithmetic is in float32, or in the weight's format if that is finer.
    """

    pattern: Pattern = HALF
    """Which entries of a block survive: LayerWise (all of them compete), RowWise or NOfM."""
    block: int = 128
    """Columns whose mask is chosen at a time; for NOfM rounded down to whole groups."""
    damping: float = 0.01
    """λ, raised until R factors (see `bridge.moments`)."""
    statistic: ClassVar[Statistic[SecondMoment]] = second_moment

    def __post_init__(self):
        if self.block < 1:
            raise BadInput(f"block {self.block}: at least one column")

    def __call__(self, weight: Weight, seen: SecondMoment) -> LinearOperator:
        found = factor(seen.mean.to(weight.device), self.damping)
        working = torch.promote_types(weight.dtype, torch.float32)
        # Transposed: a column is contiguous, and the columns ahead are one block of memory.
        columns = weight.detach().mT.to(working, copy=True).contiguous()
        columns[found.dead] = 0
        prune(columns, found.upper.to(working), self.pattern, self.block)
        operator = Sparse(columns.mT.to(weight.dtype).contiguous())
        operator.note = found.note
        return operator


@runtime_checkable
class Chooser(Protocol):
    """What says which of some columns' entries survive: a pattern, or a budget of one's own."""

    def mask(self, score: Score) -> Mask: ...


def prune(columns: Columns, upper: Triangle, chooser: Chooser, block: int) -> None:
    """Wᵀ ↦ what SparseGPT leaves of it, in place, from `upper` = V with V Vᵀ = R', V = U⁻¹.

    No inverse is needed. The errors obey e U = W - Q =: Δ, so e = Δ V, and the column that the
    loop has when it reaches j is W_:j - Σ_{i<j} e_i U_ij = W_:j + F_:j with F = Δ Ṽ over the
    columns done, Ṽ_ij = V_ij / V_jj. The changes of many columns reach those ahead as one
    product: the same sums in another order. What the loop has of the columns b ahead before it
    has touched the first of them is W_b + F_b Ṽ_bb⁻¹, one triangular solve: masks look at that.
    """
    feedback = upper / upper.diagonal()
    leaf = LEAF
    if isinstance(chooser, NOfM):
        chooser.kept(columns.shape[1], len(columns))
        leaf, block = chooser.of, max(block // chooser.of, 1) * chooser.of
    # The weights as they came; where a column is done, Δ.
    changes = columns.clone()
    for begin in range(0, len(columns), block):
        here = slice(begin, begin + block)
        some = _Some(columns[here], changes[here], feedback[here, here], upper.diagonal()[here])
        kept = None if isinstance(chooser, NOfM) else some.kept(chooser)
        _sweep(some, kept, chooser, leaf)
        columns[begin + block :].addmm_(feedback[here, begin + block :].mT, changes[here])


class _Some(NamedTuple):
    """Some consecutive columns: views of W + F, of W or Δ, of Ṽ, and of diag V."""

    columns: Columns
    changes: Columns
    feedback: Triangle
    scale: Float[Tensor, " columns"]

    def part(self, where: slice) -> "_Some":
        """Some of these columns."""
        return _Some(
            self.columns[where], self.changes[where], self.feedback[where, where], self.scale[where]
        )

    def kept(self, chooser: Chooser) -> Kept:
        """The mask of these columns, before the first of them is touched."""
        ahead = torch.linalg.solve_triangular(
            self.feedback.mT, self.columns - self.changes, upper=False, unitriangular=True
        )
        score = ((self.changes + ahead) * self.scale[:, None]).square()
        return chooser.mask(score.mT.contiguous()).mT.contiguous()


def _sweep(some: _Some, kept: Kept | None, chooser: Chooser, leaf: int) -> None:
    """Left half, its changes into the right half, right half.

    A mask that is not given is chosen at the leaf, which is then a group of N:M.
    """
    width = len(some.columns)
    if width <= leaf:
        _leaf(some, some.kept(chooser) if kept is None else kept)
        return
    half = max(width // leaf // 2, 1) * leaf
    left, right = slice(0, half), slice(half, width)
    _sweep(some.part(left), None if kept is None else kept[left], chooser, leaf)
    some.columns[right].addmm_(some.feedback[left, right].mT, some.changes[left])
    _sweep(some.part(right), None if kept is None else kept[right], chooser, leaf)


def _leaf(some: _Some, kept: Kept) -> None:
    """Column by column: what those before it changed is added when it is reached."""
    columns, changes, feedback, _ = some
    for j, column in enumerate(columns):
        if j:
            column.addmv_(changes[:j].mT, feedback[:j, j])
        column.mul_(kept[j])
        changes[j].sub_(column)
