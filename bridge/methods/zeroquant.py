"""ZeroQuant-V2's low-rank compensation (Yao et al. 2023, arXiv:2303.08302, section 5)."""

from dataclasses import dataclass
from typing import ClassVar

from bridge.operators import LinearOperator, Weight
from bridge.quantizers import Quantizer, RoundToNearest
from bridge.reconstruct import corrected
from bridge.statistics import Count, Statistic, nothing

THREE_BITS = RoundToNearest(3, 64)


@dataclass(frozen=True)
class ZeroQuantV2:
    """Ŵ + SVD_r(W - Ŵ): the least ‖W - Ŵ - L‖, which knows nothing of the inputs."""

    quantizer: Quantizer = THREE_BITS
    """What leaves Ŵ."""
    rank: int = 32
    """r, of the low-rank term."""
    statistic: ClassVar[Statistic[Count]] = nothing

    def __call__(self, weight: Weight, seen: Count) -> LinearOperator:
        return corrected(weight, self.quantizer(weight), self.rank)
