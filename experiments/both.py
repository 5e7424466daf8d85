"""OATS by its definition and fast, on the same matrix: what `ctr oats` measures."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from bridge.budget import sparse_low_rank
from bridge.methods.oats import OATS, scale
from bridge.operators import LinearOperator, Weight
from bridge.splitting import FullSVD, WarmSubspace
from bridge.statistics import Moment, Statistic, diagonal_moment
from experiments.oats import Matrix, Run


@dataclass(frozen=True)
class BothWays:
    """A method that does everything several times and keeps the first fast result."""

    oats: OATS
    accelerations: tuple[int, ...]
    found: list[Matrix] = field(default_factory=list)
    last: list[tuple[Weight, Moment]] = field(default_factory=list)
    statistic: ClassVar[Statistic[Moment]] = diagonal_moment

    def __call__(self, weight: Weight, seen: Moment) -> LinearOperator:
        few = WarmSubspace(acceleration=self.accelerations[0]).steps(self.oats.iterations)
        full = dataclasses.replace(self.oats, truncation=FullSVD())
        _, definition = timed(full, weight, seen)
        _, control = timed(dataclasses.replace(full, iterations=few), weight, seen)
        fast = [self.fast(weight, seen, a) for a in self.accelerations]
        shape = weight.shape[0], weight.shape[1]
        self.found.append(Matrix("", shape, definition, control, [run for _, run in fast]))
        self.last[:] = [(weight.detach().clone(), seen)]
        return fast[0][0]

    def fast(self, weight: Weight, seen: Moment, acceleration: int) -> tuple[LinearOperator, Run]:
        """What the fast loop makes of it, with the floor of its time."""
        warm = WarmSubspace(acceleration=acceleration)
        operator, run = timed(dataclasses.replace(self.oats, truncation=warm), weight, seen)
        return operator, run._replace(floor=self._floor(weight, seen, warm))

    def _floor(self, weight: Weight, seen: Moment, warm: WarmSubspace) -> float:
        """CPU seconds of the products that the iterations need, nothing else."""
        budget = sparse_low_rank(
            *weight.shape, compression=self.oats.compression, rank_ratio=self.oats.rank_ratio
        )
        target = weight.float() * scale(seen).float()
        fine, coarse = warm.products(
            target, rank=budget.rank, keep=budget.kept_per_row, iterations=self.oats.iterations
        )
        seconds = fine * _product_seconds(target, budget.rank)
        if coarse:
            seconds += coarse * _product_seconds(target.bfloat16(), budget.rank)
        return seconds


def timed(method: OATS, weight: Weight, seen: Moment) -> tuple[LinearOperator, Run]:
    """The operator, its errors in float64 and the CPU seconds that it took."""
    started = time.process_time()
    operator = method(weight, seen)
    seconds = time.process_time() - started
    scaled, plain = relative_errors(weight, operator.dense(), scale(seen))
    return operator, Run(scaled, plain, seconds, note=operator.note)


def relative_errors(weight: Weight, approximation: Weight, columns: Tensor) -> tuple[float, float]:
    """‖(W - Ŵ) D‖ / ‖W D‖ and ‖W - Ŵ‖ / ‖W‖, in float64."""
    whole, columns = weight.double(), columns.double()
    lost = whole - approximation.double()
    scaled = float((lost * columns).norm() / (whole * columns).norm())
    return scaled, float(lost.norm() / whole.norm())


def _product_seconds(target: Tensor, rank: int) -> float:
    """Mean of the three products of an iteration, each the fastest of a few."""
    left = torch.randn(target.shape[0], rank).to(target.dtype)
    right = torch.randn(rank, target.shape[1]).to(target.dtype)
    low = torch.empty_like(target)
    products: tuple[Callable[[], object], ...] = (
        lambda: torch.mm(left, right, out=low),
        lambda: target @ right.mT,
        lambda: target.mT @ left,
    )
    return sum(_fastest(product) for product in products) / len(products)


def _fastest(work: Callable[[], object], times: int = 5) -> float:
    found = []
    for _ in range(times):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return min(found)
