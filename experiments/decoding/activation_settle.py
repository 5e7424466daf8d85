"""Thresholds of `activation` taken again in the sparse model, so that budgets are what is read."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from torch import nn

from bridge.decode.baselines import cats
from bridge.decode.reading import Ids
from bridge.decode.recipe import Recipe
from bridge.decode.settled import settled
from bridge.decode.sparsified import sparsified
from experiments.progress import Progress


@dataclass(frozen=True)
class Settling:
    """`rounds` times t ← the quantile of what is read in the model that is sparse by t."""

    model: nn.Module
    batches: Callable[[], Sequence[Ids]]
    rounds: int
    sparse_from: float
    keep: int
    seed: int
    progress: Progress

    def recipe(self, recipe: Recipe) -> Recipe:
        """Of a recipe's linears."""
        return self._recipe(recipe, self.rounds)

    def cats(
        self, levels: dict[str, float], densities: Mapping[str, float], recipe: Recipe | None
    ) -> tuple[dict[str, float], Recipe | None]:
        """Of CATS's activations, and of the linears gated beside: both in the model of both."""
        for _ in range(self.rounds):
            if recipe is not None:
                with cats.cats(self.model, levels, sparse_from=self.sparse_from):
                    recipe = self._recipe(recipe, 1)
            beside = nullcontext() if recipe is None else sparsified(
                self.model, recipe, sparse_from=self.sparse_from, layout="shared"
            )  # fmt: skip
            with beside:
                levels = cats.settled(
                    self.model, levels, densities, self.batches(),
                    sparse_from=self.sparse_from, keep=self.keep, seed=self.seed,
                )  # fmt: skip
        return levels, recipe

    def _recipe(self, recipe: Recipe, rounds: int) -> Recipe:
        if not rounds:
            return recipe
        batches = self.batches()
        with self.progress.task("settle", rounds * len(batches)) as advance:
            return settled(
                self.model, recipe, batches, rounds=rounds, keep=self.keep,
                sparse_from=self.sparse_from, seed=self.seed, advance=advance,
            )  # fmt: skip
