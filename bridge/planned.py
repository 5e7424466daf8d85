"""What a method will spend on a matrix, told from its hyperparameters and the shape alone."""

from collections.abc import Sequence
from functools import singledispatch
from typing import NamedTuple

from bridge.budget import Cost, sparse_low_rank
from bridge.methods.gptq import GPTQ
from bridge.methods.loftq import LoftQ
from bridge.methods.low_rank import MomentLowRank, PlainLowRank, ScaledLowRank, rank_within
from bridge.methods.lqer import LQER
from bridge.methods.magnitude import Magnitude
from bridge.methods.oats import OATS
from bridge.methods.oats_moment import MomentOATS
from bridge.methods.qera import QERA, QERAApproximate
from bridge.methods.rounding import Rounding
from bridge.methods.sparse_only import SparseOnly
from bridge.methods.sparsegpt import SparseGPT
from bridge.methods.wanda import Wanda
from bridge.methods.zeroquant import ZeroQuantV2
from bridge.patterns import NOfM
from bridge.quantizers import MXINT, Quantizer, RoundToNearest
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
    zero; such zeros make the operator cheaper than this, and so does second-moment OATS' mask,
    which rounds down in every block of columns. Raises BadInput as `spending` does.

    Examples:
        >>> planned(Wanda(), [(48, 32)]).density
        0.5
        >>> planned(QERA(rank=4), [(48, 32)]).kept - 48 * 32  # the low-rank term
        320
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


def quantized(quantizer: Quantizer, d_out: int, d_in: int, width: int) -> Spending:
    """Codes in planes of whole bytes, a scale a row and group, and its zero where there is one."""
    groups = d_out * -(-d_in // (quantizer.group or d_in))
    scales = groups * (8 if isinstance(quantizer, MXINT) else width)
    if isinstance(quantizer, RoundToNearest) and not quantizer.symmetric:
        scales += _planes(groups, quantizer.bits)
    return Spending(d_out * d_in, _planes(d_out * d_in, quantizer.bits) + scales)


def _planes(numbers: int, bits: int) -> int:
    return bits * 8 * -(-numbers // 8)


@spending.register(Magnitude)
@spending.register(Wanda)
def _(method: Magnitude | Wanda, d_out: int, d_in: int, width: int) -> Spending:
    return sparse(method.pattern.kept(d_out, d_in), d_out, d_in, width)


@spending.register
def _(method: SparseGPT, d_out: int, d_in: int, width: int) -> Spending:
    pattern, block = method.pattern, method.block
    if isinstance(pattern, NOfM):
        block = max(block // pattern.of, 1) * pattern.of
    columns = [min(block, d_in - begin) for begin in range(0, d_in, block)]
    return sparse(sum(pattern.kept(d_out, some) for some in columns), d_out, d_in, width)


@spending.register
def _(method: SparseOnly, d_out: int, d_in: int, width: int) -> Spending:
    budget = sparse_low_rank(d_out, d_in, compression=method.compression, rank_ratio=0)
    return sparse(budget.kept_per_row * d_out, d_out, d_in, width)


@spending.register(PlainLowRank)
@spending.register(ScaledLowRank)
@spending.register(MomentLowRank)
def _(
    method: PlainLowRank | ScaledLowRank | MomentLowRank, d_out: int, d_in: int, width: int
) -> Spending:
    rank = rank_within(d_out, d_in, compression=method.compression)
    return low_rank(rank, d_out, d_in, width)


@spending.register(OATS)
@spending.register(MomentOATS)
def _(method: OATS | MomentOATS, d_out: int, d_in: int, width: int) -> Spending:
    budget = (
        method.budget(d_out, d_in)
        if isinstance(method, OATS)
        else sparse_low_rank(
            d_out, d_in, compression=method.compression, rank_ratio=method.rank_ratio
        )
    )
    entries = sparse(budget.kept_per_row * d_out, d_out, d_in, width)
    return entries + low_rank(budget.rank, d_out, d_in, width)


@spending.register(Rounding)
@spending.register(GPTQ)
def _(method: Rounding | GPTQ, d_out: int, d_in: int, width: int) -> Spending:
    return quantized(method.quantizer, d_out, d_in, width)


@spending.register(ZeroQuantV2)
@spending.register(LQER)
@spending.register(QERAApproximate)
@spending.register(QERA)
@spending.register(LoftQ)
def _(
    method: ZeroQuantV2 | LQER | QERAApproximate | QERA | LoftQ, d_out: int, d_in: int, width: int
) -> Spending:
    rank = min(method.rank, d_out, d_in)
    return quantized(method.quantizer, d_out, d_in, width) + low_rank(rank, d_out, d_in, width)
