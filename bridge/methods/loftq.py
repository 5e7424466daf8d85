"""LoftQ: quantised base and low-rank term in alternation (Li et al. 2023, arXiv:2310.08659)."""

from dataclasses import dataclass
from typing import ClassVar

from bridge.methods.zeroquant import THREE_BITS
from bridge.operators import LinearOperator, Weight
from bridge.quantizers import Quantizer
from bridge.reconstruct import remainder
from bridge.statistics import Count, Statistic, nothing
from mech.errors import BadInput


@dataclass(frozen=True)
class LoftQ:
    """Q_n = quant(W - L_(n-1)), L_n = SVD_r(W - Q_n), L_0 = 0, n = 1 … N (algorithm 1).

    Quantised first, so that one iteration is ZeroQuant-V2. Both of the last iteration are kept
    and both factors of L hold √Σ: they start a PEFT adapter on the base Q_N. Raises BadInput for
    fewer than one iteration.
    """

    quantizer: Quantizer = THREE_BITS
    """quant."""
    rank: int = 32
    """r, of the low-rank term."""
    iterations: int = 5
    """N; the paper's 5, where its release does 1."""
    statistic: ClassVar[Statistic[Count]] = nothing

    def __post_init__(self):
        if self.iterations < 1:
            raise BadInput(f"iterations {self.iterations}: at least one")

    def __call__(self, weight: Weight, seen: Count) -> LinearOperator:
        quantized = self.quantizer(weight)
        low = remainder(weight, quantized, self.rank)
        for _ in range(self.iterations - 1):
            quantized = self.quantizer(weight - low.matrix())
            low = remainder(weight, quantized, self.rank)
        return quantized + low if self.rank else quantized
