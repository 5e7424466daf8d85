"""OATS by its definition and fast, on the same matrix: what `ctr oats` measures."""

import dataclasses
import time
from dataclasses import dataclass, field
from typing import ClassVar

from bridge.methods import OATS
from bridge.methods.oats import scale
from bridge.operators import LinearOperator, Weight
from bridge.splitting import FullSVD
from bridge.statistics import Moment, Statistic, diagonal_moment
from experiments.oats import Matrix


@dataclass(frozen=True)
class BothWays:
    """A method that does everything twice and keeps the fast result."""

    oats: OATS
    found: list[Matrix] = field(default_factory=list)
    statistic: ClassVar[Statistic[Moment]] = diagonal_moment

    def __call__(self, weight: Weight, seen: Moment) -> LinearOperator:
        definition = dataclasses.replace(self.oats, truncation=FullSVD())
        slow, slow_seconds = _timed(definition, weight, seen)
        fast, fast_seconds = _timed(self.oats, weight, seen)
        columns = scale(seen).double()
        whole, dense = weight.double(), (slow.dense().double(), fast.dense().double())
        scaled = [float(((whole - w) * columns).norm() / (whole * columns).norm()) for w in dense]
        plain = [float((whole - w).norm() / whole.norm()) for w in dense]
        self.found.append(
            Matrix(
                name="",
                shape=(weight.shape[0], weight.shape[1]),
                definition_error=scaled[0],
                fast_error=scaled[1],
                definition_plain=plain[0],
                fast_plain=plain[1],
                definition_seconds=slow_seconds,
                fast_seconds=fast_seconds,
            )
        )
        return fast


def _timed(method: OATS, weight: Weight, seen: Moment) -> tuple[LinearOperator, float]:
    started = time.process_time()
    operator = method(weight, seen)
    return operator, time.process_time() - started
