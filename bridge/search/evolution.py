"""The evolutionary search of R-Sparse's paper, which its release does not have."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mech.errors import BadInput

Vector = Float[np.ndarray, " _variables"]
Fitness = Callable[[Sequence[Vector]], Sequence[float]]
"""Losses of several vectors; vectors of a batch differ in one group only."""


@dataclass(frozen=True)
class Evolution:
    """Differential evolution of ρ, group by group of linears.

    Zhang et al. 2025, arXiv:2504.19449, section 4.3: population 32, 5 generations, mutants
    x_a + p_m (x_b - x_c) with p_m = 0.5, binomial crossover with p_c = 0.5, the best of parents and
    children survive, 28 variables (4 blocks of 7 linears) at a time with the others at their best.
    The paper does not say how a population begins: here with the best so far, and copies of it
    in which every second variable is uniform on [`lowest`, 1]. No copy that is cut at 1 is lost:
    ρ = 1, no low rank at all, is where the search may end.
    """

    population: int = 32
    generations: int = 5
    mutation: float = 0.5
    crossover: float = 0.5
    group: int = 28
    lowest: float = 0.5
    seed: int = 0

    def __post_init__(self):
        if self.population < 4 or self.generations < 0 or self.group < 1:
            raise BadInput(
                f"population {self.population}, generations {self.generations}, group "
                f"{self.group}: at least 4, 0 and 1"
            )

    def search(
        self,
        start: Vector,
        fitness: Callable[[int, Vector], Fitness],
        done: Callable[[int, float], None] | None = None,
    ) -> tuple[Vector, float]:
        """The best vector found and its loss. Equal seeds and fitnesses give equal searches.

        `fitness(first, best)` is asked once a group, for the losses of vectors that are `best`
        outside `first`..`first + group`; `done(first, loss)` is told of every group's best.
        """
        best, loss = start.copy(), float("nan")
        for number, first in enumerate(range(0, len(start), self.group)):
            rng = np.random.default_rng([self.seed, number])
            there = slice(first, min(first + self.group, len(start)))
            best[there], loss = self._group(best, there, fitness(first, best.copy()), rng)
            if done is not None:
                done(first, loss)
        return best, loss

    def _group(
        self, best: Vector, there: slice, fitness: Fitness, rng: np.random.Generator
    ) -> tuple[Vector, float]:
        def judged(parts: np.ndarray) -> np.ndarray:
            whole = np.repeat(best[None], len(parts), 0)
            whole[:, there] = parts
            return np.asarray(fitness(list(whole)), dtype=np.float64)

        size = there.stop - there.start
        parents = np.repeat(best[None, there], self.population, 0)
        drawn = rng.uniform(self.lowest, 1, parents.shape)
        anew = rng.random(parents.shape) < 0.5
        anew[0] = False
        parents = np.where(anew, drawn, parents)
        losses = judged(parents)
        for _ in range(self.generations):
            children = np.stack([self._child(parents, i, size, rng) for i in range(len(parents))])
            both = np.concatenate([parents, children])
            every = np.concatenate([losses, judged(children)])
            # Stable: of equal losses the older one stays. NaN comes last.
            order = np.argsort(every, kind="stable")[: self.population]
            parents, losses = both[order], every[order]
        return parents[np.argmin(losses)], float(losses.min())

    def _child(
        self, parents: np.ndarray, own: int, size: int, rng: np.random.Generator
    ) -> np.ndarray:
        others = [i for i in range(len(parents)) if i != own]
        a, b, c = parents[rng.choice(others, 3, replace=False)]
        mutant = np.clip(a + self.mutation * (b - c), 0, 1)
        crossed = rng.random(size) < self.crossover
        crossed[rng.integers(size)] = True  # at least one variable is the mutant's
        return np.where(crossed, mutant, parents[own])
