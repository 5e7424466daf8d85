"""What a method will spend on a matrix, told from its hyperparameters and the shape alone."""

from collections.abc import Sequence
from functools import singledispatch
from typing import NamedTuple

from bridge.budget import Cost, sparse_low_rank
from bridge.methods.magnitude import Magnitude
from bridge.methods.oats import OATS
from bridge.methods.wanda import Wanda
from mech.errors import BadInput

Shape = tuple[int, int]


class Spending(NamedTuple):
    """Numbers kept, bits they and their places take, numbers between two products: they add up."""

    kept: int
    bits: int
    inner: int = 0

    def __add__(self, other: "Spending") -> "Spending":  # type: ignore[override]
        return Spending(*(a + b for a, b in zip(self, other, strict=True)))


@singledispatch
def spending(method: object, d_out: int, d_in: int, width: int) -> Spending:
    """What `method` stores for W of d_out rows and d_in columns, `width` bits a number.

    One entry a class of methods: `spending.register`. Raises BadInput for one without an entry.
    """
    raise BadInput(f"{type(method).__name__}: what it spends is not known before it has run")


def planned(method: object, parts: Sequence[Shape], width: int = 32) -> Cost:
    """The `cost` of the operator that `method` will leave, biases not counted.

    `parts`: shapes (d_out, d_in) of the matrices that a linear holds, several where queries, keys
    and values are fused; one input is read for all of them. Exact where no weight that is kept is
    zero; such zeros make the operator cheaper than this. Raises BadInput as `spending` does.
    """
    first, *rest = (spending(method, *part, width) for part in parts)
    kept, bits, inner = sum(rest, start=first)
    numbers = sum(d_out for d_out, _ in parts) + parts[0][1] + 2 * inner
    moved = -(-bits // 8) + width // 8 * numbers
    return Cost(sum(d_out * d_in for d_out, d_in in parts), kept, bits, 2 * kept, moved)


def sparse(kept: int, d_out: int, d_in: int, width: int) -> Spending:
    """`kept` entries and a bitmask for their places."""
    return Spending(kept, kept * width + d_out * d_in)


def low_rank(rank: int, d_out: int, d_in: int, width: int) -> Spending:
    """Two factors: r (d_out + d_in) numbers."""
    kept = rank * (d_out + d_in)
    return Spending(kept, kept * width, rank)


@spending.register
def _(method: Magnitude, d_out: int, d_in: int, width: int) -> Spending:
    return sparse(method.pattern.kept(d_out, d_in), d_out, d_in, width)


@spending.register
def _(method: Wanda, d_out: int, d_in: int, width: int) -> Spending:
    return sparse(method.pattern.kept(d_out, d_in), d_out, d_in, width)


@spending.register
def _(method: OATS, d_out: int, d_in: int, width: int) -> Spending:
    budget = sparse_low_rank(
        d_out, d_in, compression=method.compression, rank_ratio=method.rank_ratio
    )
    entries = sparse(budget.kept_per_row * d_out, d_out, d_in, width)
    return entries + low_rank(budget.rank, d_out, d_in, width)
