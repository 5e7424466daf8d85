"""Recipes that searches of `ctr search` find, for a model that an experiment has prepared."""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.settings import within

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from bridge.decode.plan import Plan
    from experiments.decoding.search_run import Work
    from experiments.parts.r_sparse.sparse import Sparse


@dataclass(frozen=True)
class Search:
    """How long is searched; the paper's evolution has a population of 32 and 5 generations."""

    samples: int = 4
    """Calibration sequences that trials are judged on; costs are taken of the others."""
    length: int = 64
    """Tokens of such a sequence."""
    population: int = 6
    """Recipes of a generation."""
    generations: int = 2
    """Generations of each group."""
    group: int = 105
    """Linears that are searched at a time; the paper's 28 are four blocks."""

    def check(self, calibration: int) -> None:
        """Raises BadOption where nothing is searched, or nothing is left to calibrate on."""
        within("samples", self.samples, 1, calibration - 1)
        within("length", self.length, 2)
        within("population", self.population, 4)
        within("generations", self.generations, 0)
        within("group", self.group, 1)


def knapsacks(sparse: "Sparse", search: Search, sparsities: Iterable[float]) -> "dict[float, Plan]":
    """The best sum of costs in nats at every sparsity: ours, over bytes as well as ranks."""
    from bridge.search.knapsack import knapsack
    from experiments.decoding.search_run import costed

    found = costed(_work(sparse, search, 0.5, Path()))
    return {s: knapsack(found, sparse.shapes, s) for s in sparsities}


def evolution(sparse: "Sparse", search: Search, sparsity: float) -> "tuple[Plan, int]":
    """R-Sparse's search over the low-rank shares at one sparsity everywhere; and its trials."""
    from experiments.decoding.search_run import evolved

    with tempfile.TemporaryDirectory() as folder:
        plan, _, trials = evolved(_work(sparse, search, sparsity, Path(folder)))
    return plan, trials


def _work(sparse: "Sparse", search: Search, sparsity: float, folder: Path) -> "Work":
    from experiments.decoding.search import Config
    from experiments.decoding.search_run import Work
    from experiments.measure import Material

    work = sparse.work
    seen = work.calibration[: -search.samples]
    config = Config(
        method="evolution",
        sparsity=sparsity,
        state=folder,
        population=search.population,
        generations=search.generations,
        group=search.group,
        processes=1,
        seed=sparse.gating.seed,
    )
    return Work(
        config,
        work.loaded.model,
        Material(work.calibration, work.windows, work.sequences, work.bos_id, work.inputs),
        seen.split(2),
        work.calibration[-search.samples :, : search.length].split(search.samples),
        sparse.progress,
    )
