"""By which route does a seed average? Decided by what breaks it, not by what it looks like.

A change breaks a seed when it no longer averages (FVU >= 0.1). A seed that averages needs [SEP]
when cutting it from later tokens in layer 1 breaks the seed, and more than cutting any of the
random other tokens does; it needs the tag when erasing that direction after layer 1 breaks it, and
more than erasing any of the random ones does.

    none      it does not average
    sink      needs [SEP], the tag and layer 1's choice of whom to look at, and some head of layer 1
              has over 0.9 of its attention on [SEP]
    shared    the same needs, and every head of layer 1 has less
    uniform   needs [SEP], the tag and layer 1's MLP; layer 1 may look at all tokens alike (C2)
    subtract  lacks one of the first two needs, and [SEP] must see what stands before it (C5)
    other     none of these
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax

from toy.diagnose import FVU, SINK
from toy.larger.causal import Effects, effects
from toy.larger.observe import Seen, forward, observe, places
from toy.larger.ranks import Ranks, ranks
from toy.larger.train import Recipe, Trained, task
from toy.larger.truncate import Truncated, truncated
from toy.larger.weights import Weights
from toy.tasks import Batch

Route = Literal["none", "sink", "shared", "uniform", "subtract", "other"]
ROUTES: tuple[Route, ...] = get_args(Route)
LOUD = 2.0
"""One length is an outlier beside another when it is this many times as large."""


class Verdict(NamedTuple):
    """A seed's route, and two gauges of it.

    by_outlier: [SEP]'s embedding is over LOUD times as long as the numbers' (the theorem's
    s_tag); otherwise the attention's weights provide the gain (C1). louder: which tokens are
    longer after layer 1, by LOUD: those after [SEP] (the theorem), those before it (C4), neither.
    """

    route: Route
    by_outlier: bool
    louder: Literal["after", "before", "neither"]


class Dossier(NamedTuple):
    """All that was measured of one seed; `start` are its ranks before training."""

    seen: Seen
    effects: Effects
    ranks: Ranks
    start: Ranks
    truncated: Truncated
    verdict: Verdict


def verdict(seen: Seen, effects: Effects) -> Verdict:
    """`Verdict` of one seed."""
    ratio = seen.tags[1].after_over_before
    return Verdict(
        route=_route(seen, effects),
        by_outlier=seen.sep_over_number > LOUD,
        louder="after" if ratio > LOUD else "before" if ratio < 1 / LOUD else "neither",
    )


def _route(seen: Seen, effects: Effects) -> Route:
    if not seen.fvu < FVU:
        return "none"
    needs_sep = effects.cut_catch >= max(FVU, effects.other_token.max())
    needs_tag = effects.erased >= max(FVU, effects.other_erased.max())
    if not (needs_sep and needs_tag):
        return "subtract" if effects.blind_sep >= FVU else "other"
    if effects.flat < FVU:
        return "uniform" if effects.mute >= FVU else "other"
    return "sink" if seen.sink[0].max() > SINK else "shared"


def held_out(recipe: Recipe, sequences: int) -> Batch:
    """Sequences of the recipe's task from a key that training never used."""
    return task(recipe, jax.random.fold_in(jax.random.key(recipe.seed), 0x7E57), sequences)


def seed_of(weights: Weights, seed: int) -> Weights:
    """One seed's weights."""
    return Weights(*(field[seed] for field in weights))


def study(recipe: Recipe, start: Weights, weights: Weights, batch: Batch) -> Dossier:
    """Measure, break and judge one seed."""
    shape, at = recipe.shape, places(batch)
    seen, broken = observe(shape, weights, batch), effects(shape, weights, batch)
    left = forward(shape, weights, batch)[1]
    return Dossier(
        seen=seen,
        effects=broken,
        ranks=ranks(shape, weights, left, at),
        start=ranks(shape, start, forward(shape, start, batch)[1], at),
        truncated=truncated(shape, weights, batch, left, at),
        verdict=verdict(seen, broken),
    )


def study_all(
    trained: Trained, *, sequences: int = 512, advance: Callable[[str], None] | None = None
) -> list[Dossier]:
    """Every seed, on the same held-out sequences; `advance(name)` is called after each."""
    batch = held_out(trained.recipe, sequences)
    dossiers = []
    for seed in range(trained.recipe.seeds):
        start, weights = seed_of(trained.start, seed), seed_of(trained.weights, seed)
        dossiers.append(study(trained.recipe, start, weights, batch))
        if advance is not None:
            advance(f"seed {seed}")
    return dossiers
