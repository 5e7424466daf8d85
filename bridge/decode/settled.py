"""Thresholds of what linears read in the sparse model, so that the budget is what is read."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from bridge.decode.gated import Gated
from bridge.decode.inputs import calibrate
from bridge.decode.phase import Phase, first_gated
from bridge.decode.places import HEAD
from bridge.decode.reading import Ids
from bridge.decode.recipe import Recipe
from bridge.sites import place, show
from bridge.stream import hooked


def settled(
    model: nn.Module,
    recipe: Recipe,
    batches: Sequence[Ids],
    *,
    rounds: int = 2,
    sparse_from: float = 0.0,
    keep: int = 2048,
    seed: int = 0,
    advance: Callable[[str], None] | None = None,
) -> Recipe:
    """t ← the quantiles of the inputs in the model that is gated by t, `rounds` times.

    Thresholds of the dense model's inputs read less than the plan allows: what linears read
    behind others that leave something out is smaller. All linears are settled at once, so that
    a few rounds are needed; behind dense linears one changes nothing. Factors and biases stay.
    Only tokens from ⌊T sparse_from⌋ of a sequence of T count. Errors as in `calibrate`.
    """
    recipe.check(model)
    # What is no nn.Linear (GPT-2's transposed ones, experts) stands as one while it is watched.
    stood = show(model, recipe.plan)
    try:
        return _settled(model, recipe, batches, rounds, sparse_from, keep, seed, advance)
    finally:
        place(model, stood)


def _settled(
    model: nn.Module,
    recipe: Recipe,
    batches: Sequence[Ids],
    rounds: int,
    sparse_from: float,
    keep: int,
    seed: int,
    advance: Callable[[str], None] | None,
) -> Recipe:
    linears = recipe.check(model)
    for _ in range(rounds):
        exclude = None
        if any(first_gated(ids.shape[1], sparse_from) for ids in batches):
            exclude = [_dense(ids, sparse_from) for ids in batches]
        with _answering(model, recipe, linears, sparse_from):
            inputs = calibrate(
                model, batches, keep=keep, seed=seed, exclude=exclude, head=HEAD in recipe.plan,
                advance=advance,
            )  # fmt: skip
        thresholds = {
            name: inputs.thresholds(name, linear.weight, recipe.plan[name])
            for name, linear in linears.items()
        }
        recipe = replace(recipe, thresholds=thresholds)
    return recipe


def _dense(ids: Ids, sparse_from: float) -> torch.Tensor:
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    mask[:, : first_gated(ids.shape[1], sparse_from)] = True
    return mask


@contextmanager
def _answering(
    model: nn.Module, recipe: Recipe, linears: dict[str, nn.Linear], sparse_from: float
) -> Iterator[None]:
    """Linears answer as if gated, but stand where they stood: what they read can be sampled."""
    phase = Phase(sparse_from)

    def hook(name: str, linear: nn.Linear) -> Any:
        gated = Gated.of(recipe, name, linear, phase)
        return lambda _, args, __: gated(args[0])

    watching = phase.watching(model)
    try:
        with hooked([(m, "post", hook(name, m)) for name, m in linears.items()]):
            yield
    finally:
        watching.remove()
