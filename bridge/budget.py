"""Exact budgets: how many numbers a matrix may keep, and what an operator stores and computes."""

from fractions import Fraction
from typing import NamedTuple

from torch import nn

from bridge.operators import Operator
from bridge.patterns import NOfM, exact
from mech.errors import BadInput


class SparseLowRank(NamedTuple):
    """How a budget is spent on a sparse and a low-rank term."""

    rank: int
    kept_per_row: int
    kept: int
    allowed: int


def sparse_low_rank(
    d_out: int, d_in: int, *, compression: float, rank_ratio: float
) -> SparseLowRank:
    """r = ⌊κ (1-ρ) m n / (m+n)⌋ and k = ⌊(1-κ) (1-ρ) n⌋ entries a row, for W of m rows, n columns.

    Both are rounded down, so r (m+n) + k m ≤ (1-ρ) m n always. The release of OATS rounds what
    a row *loses* down: its k is this one where (1-κ) (1-ρ) n is whole (κ = 1/4, ρ = 1/2, n = 8 i)
    and one more elsewhere. ρ is `compression`, κ is `rank_ratio`. Raises BadInput where either is
    outside (0, 1) or [0, 1).

    Examples:
        >>> sparse_low_rank(576, 576, compression=0.5, rank_ratio=0.25)
        SparseLowRank(rank=36, kept_per_row=216, kept=165888, allowed=165888)
    """
    if not 0 < compression < 1:
        raise BadInput(f"compression {compression}: it must be above 0 and below 1")
    if not 0 <= rank_ratio < 1:
        raise BadInput(f"rank_ratio {rank_ratio}: it must be at least 0 and below 1")
    density, share = 1 - exact(compression), exact(rank_ratio)
    rank = int(share * density * d_out * d_in / (d_out + d_in))
    kept_per_row = int((1 - share) * density * d_in)
    kept = rank * (d_out + d_in) + kept_per_row * d_out
    allowed = int(density * d_out * d_in)
    assert kept <= allowed, (kept, allowed)
    return SparseLowRank(rank, kept_per_row, kept, allowed)


def grouped_low_rank(d_out: int, d_in: int, *, groups: NOfM, rank_ratio: float) -> SparseLowRank:
    """N of every M entries and r = ⌊κ/(1-κ) N/M m n / (m+n)⌋: the budget of 1-ρ = (N/M) / (1-κ).

    As OATS spends it: κ of what is kept is low rank. Raises BadInput where rows of n do not split
    into groups of M.
    """
    share = exact(rank_ratio)
    density = Fraction(groups.keep, groups.of) / (1 - share)
    entries = groups.kept(d_out, d_in)
    rank = int(share * density * d_out * d_in / (d_out + d_in))
    kept = rank * (d_out + d_in) + entries
    return SparseLowRank(rank, entries // d_out, kept, int(density * d_out * d_in))


class Cost(NamedTuple):
    """What stands where a linear of `parameters` weights stood; a bias is in bits and flops."""

    parameters: int
    kept: int
    bits: int
    flops: int
    bytes_moved: int

    @property
    def density(self) -> float:
        """kept / parameters."""
        return self.kept / self.parameters

    def __add__(self, other: "Cost") -> "Cost":  # type: ignore[override]
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))


def cost(module: Operator | nn.Linear, parameters: int | None = None) -> Cost:
    """The cost of an operator that replaced `parameters` weights, or of a linear itself.

    bits: the numbers kept in their own format, a bitmask for the places of unstructured ones.
    flops: a token, two a multiply-add, of the arithmetic needed (not of a simulation of it).
    bytes_moved: a token by itself (batch 1): what is stored, the input and the output once each,
    and what two thin products hand on; see `Operator.bytes_moved`.

    Examples:
        >>> import torch
        >>> from bridge.operators import Sparse
        >>> cost(Sparse(torch.tensor([[1.0, 0.0], [0.0, 2.0]])), parameters=4).density
        0.5
    """
    if isinstance(module, Operator):
        if parameters is None:
            raise TypeError("cost of an operator: say how many parameters it replaced")
        kept, bits = module.parameters_kept(), module.bits()
        return Cost(parameters, kept, bits, module.flops(), module.bytes_moved())
    weight, bias = module.weight, 0 if module.bias is None else module.bias.numel()
    width, count = weight.element_size(), weight.numel()
    moved = width * (count + bias + sum(weight.shape))
    return Cost(count, count, 8 * width * (count + bias), 2 * count + bias, moved)
