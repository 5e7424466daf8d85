"""One linear, quantised and mended every way: its output errors on fitted and on held-out text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bridge.method import Method
from bridge.methods.gptq import GPTQ
from bridge.methods.loftq import LoftQ
from bridge.methods.lqer import LQER, Magnitudes, mean_magnitude
from bridge.methods.qera import QERA, QERAApproximate
from bridge.methods.rounding import Rounding
from bridge.methods.zeroquant import ZeroQuantV2
from bridge.operators import LinearOperator, LowRank, Weight
from bridge.quantizers import Quantizer, RoundToNearest
from bridge.sites import block_of
from bridge.statistics import (
    Count,
    SecondMoment,
    Statistic,
    diagonal_moment,
    nothing,
    second_moment,
)
from bridge.stream import evaluating, hooked, record
from bridge.watch import watch
from mech.blocks import decoder_blocks, unwrap

EXACT, SHRUNK, DIAGONAL = "QERA-exact", "QERA-exact, shrunk", "QERA-approximate"
ROUNDED, MENDED, RICHER = "rounding", "GPTQ", "rounding, more bits"
LOW_RANK = ("ZeroQuant-V2", "LQER", "LoftQ", DIAGONAL)
PLAIN = "inverse root"


class Read(NamedTuple):
    """What a linear read: Σ x xᵀ and Σ |x|."""

    second: SecondMoment
    magnitudes: Magnitudes


class Row(NamedTuple):
    """One linear and one method: √ E‖(W - Ŵ) x‖² / E‖W x‖² on both texts, bits a weight."""

    name: str
    method: str
    fitted: float
    held_out: float
    bits: float


class Few(NamedTuple):
    """A form fitted to few tokens: its held-out error over the diagonal form's of these tokens."""

    name: str
    tokens: int
    form: str
    ratio: float


_read = Statistic(
    init=lambda d_in: Read(second_moment.init(d_in), mean_magnitude.init(d_in)),
    update=lambda read, x: Read(
        second_moment.update(read.second, x), mean_magnitude.update(read.magnitudes, x)
    ),
    merge=lambda a, b: Read(
        second_moment.merge(a.second, b.second),
        mean_magnitude.merge(a.magnitudes, b.magnitudes),
    ),
)


@dataclass(frozen=True)
class RandomSubspace:
    """Ŵ + U Uᵀ (W - Ŵ) with r random orthonormal columns U: the rank without the choice."""

    quantizer: Quantizer
    rank: int
    statistic: ClassVar[Statistic[Count]] = nothing

    def __call__(self, weight: Weight, seen: Count) -> LinearOperator:
        quantized = self.quantizer(weight)
        generator = torch.Generator().manual_seed(0)
        rank = min(self.rank, *weight.shape)
        basis = torch.linalg.qr(torch.randn(len(weight), rank, generator=generator)).Q.to(weight)
        return quantized + LowRank(basis, basis.mT @ (weight - quantized.dense()))


def methods(quantizer: Quantizer, rank: int) -> dict[str, Method]:
    """Every way, with one grid and one rank."""
    return {
        ROUNDED: Rounding(quantizer),
        MENDED: GPTQ(quantizer),
        "GPTQ, act-order": GPTQ(quantizer, act_order=True),
        "random subspace": RandomSubspace(quantizer, rank),
        "ZeroQuant-V2": ZeroQuantV2(quantizer, rank),
        "LoftQ": LoftQ(quantizer, rank),
        "LQER": LQER(quantizer, rank),
        DIAGONAL: QERAApproximate(quantizer, rank),
        EXACT: QERA(quantizer, rank, 0.0),
        SHRUNK: QERA(quantizer, rank),
    }


def walk(
    model: nn.Module,
    linears: Mapping[str, nn.Linear],
    texts: Mapping[str, Sequence[Int[Tensor, "_batch _seq"]]],
) -> Iterator[dict[str, dict[str, Read]]]:
    """Block by block, by text and linear: what the linears of the dense model read of each text.

    Blocks without a linear that is asked for are passed through; those behind the last are not
    reached. Moments of one block are in memory at a time.
    """
    last = max(map(block_of, linears))
    with evaluating(model), torch.no_grad():
        recordings = {text: record(model, batches) for text, batches in texts.items()}
        streams = {text: recording.resid for text, recording in recordings.items()}
        for layer, block in enumerate(decoder_blocks(model)[: last + 1]):
            here = {name: linear for name, linear in linears.items() if block_of(name) == layer}
            found = {}
            for text, recording in recordings.items():
                after: list[Tensor] = []
                keep = [(block, "post", lambda *call, out=after: out.append(unwrap(call[2])))]
                with hooked(keep):
                    seen = watch(
                        block,
                        here,
                        dict.fromkeys(here, _read),
                        streams[text],
                        recording.calls[layer],
                    )
                streams[text] = after
                found[text] = {name: seen[name].statistic for name in here}
            if here:
                yield found


def rows(
    name: str,
    weight: Weight,
    ways: Mapping[str, Method],
    fitted: Read,
    held_out: Read,
) -> list[Row]:
    """A line a method, and one of rounding to as many bits as QERA-exact takes, or fewer."""
    found = {way: method(weight, seen_by(method, fitted)) for way, method in ways.items()}
    found[RICHER] = _richer(weight, ways[ROUNDED], found[EXACT].bits())
    first, second = judge(weight, fitted.second), judge(weight, held_out.second)
    return [
        Row(name, way, first(made), second(made), operator.bits() / weight.numel())
        for way, operator in found.items()
        for made in [operator.dense()]
    ]


def few(
    name: str, weight: Weight, quantizer: RoundToNearest, rank: int, fitted: Read, held_out: Read
) -> list[Few]:
    """The exact form three ways, over the diagonal form, all fitted to the same few tokens."""
    seen, error = fitted.second, judge(weight, held_out.second)
    diagonal = error(QERAApproximate(quantizer, rank)(weight, seen.diagonal).dense())
    forms: dict[str, Callable[[], Weight]] = {
        PLAIN: lambda: inverse_root(weight, quantizer(weight).dense(), rank, seen.mean),
        EXACT: lambda: QERA(quantizer, rank, 0.0)(weight, seen).dense(),
        SHRUNK: lambda: QERA(quantizer, rank)(weight, seen).dense(),
    }
    return [Few(name, seen.tokens, form, error(make()) / diagonal) for form, make in forms.items()]


def judge(weight: Weight, seen: SecondMoment) -> Callable[[Weight], float]:
    """Ŵ ↦ √ tr(E R Eᵀ) / tr(W R Wᵀ), E = W - Ŵ; infinite where Ŵ is not finite."""
    moment, dense = seen.mean, weight.double()
    whole = ((dense @ moment) * dense).sum()

    def error(made: Weight) -> float:
        left = dense - made.double()
        if not bool(left.isfinite().all()):
            return float("inf")
        return float((((left @ moment) * left).sum() / whole).sqrt())

    return error


def inverse_root(
    weight: Weight, quantized: Weight, rank: int, moment: Float[Tensor, "d_in d_in"]
) -> Weight:
    """Ŵ + SVD_r((W - Ŵ) R^½) R^-½ as the papers' code has it: SVD and solve in float32, no damping.

    The root is taken in float64. All of Ŵ is not a number where R^½ has no solution.
    """
    values, vectors = torch.linalg.eigh(moment)
    root = ((vectors * values.clamp_min(0).sqrt()) @ vectors.mT).float()
    left, sizes, right = torch.linalg.svd(
        root @ (weight - quantized).float().mT, full_matrices=False
    )
    solved, failed = torch.linalg.solve_ex(root, left[:, :rank])
    if int(failed):
        return torch.full_like(weight, torch.nan)
    return quantized + (solved @ (sizes[:rank, None] * right[:rank])).mT


def seen_by(method: Method, read: Read) -> object:
    """What the method's own statistic is of a linear that read this."""
    if method.statistic is second_moment:
        return read.second
    if method.statistic is diagonal_moment:
        return read.second.diagonal
    return read.magnitudes if method.statistic is mean_magnitude else Count(read.second.tokens)


def _richer(weight: Weight, rounding: Method, bits: int) -> LinearOperator:
    """Rounding with the most bits a code, up to 8, that fit into `bits`."""
    assert isinstance(rounding, Rounding)
    assert isinstance(rounding.quantizer, RoundToNearest)
    group, symmetric = rounding.quantizer.group, rounding.quantizer.symmetric
    operators = (RoundToNearest(b, group, symmetric)(weight) for b in range(8, 1, -1))
    return next(operator for operator in operators if operator.bits() <= bits)
