"""What `pruning` found of every variant, with intervals: beside dense, and beside Wanda."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from experiments.intervals import Interval, interval
from experiments.recalls import Recalls, difference, ratios, recalls

if TYPE_CHECKING:
    from experiments.pruning import Variant
    from experiments.pruning_read import Seen

BESIDE = "wanda"
"""The method that the others are paired with, at the same sparsity and with a uniform budget; a
method with another allocation is paired with itself at the first one."""


class Loss(NamedTuple):
    """Over windows: exp of the mean, and paired differences in nats a token, b - a.

    None where there are fewer than two windows (no interval), or nothing to pair with.
    """

    ppl: float
    windows: int
    to_dense: Interval | None
    beside: Interval | None


class Tags(NamedTuple):
    """Over sequences, means of the heads that tag: outputs against the dense model's labels.

    eta2, ari: above random contiguous segments of the same sequence. to_dense: ARI less the dense
    model's. None where fewer than two sequences have two groups.
    """

    eta2: Interval | None
    ari: Interval | None
    null: Interval | None
    to_dense: Interval | None


class Judged(NamedTuple):
    """One variant; `beside` is what it is paired with besides the dense model, or empty.

    later_beside: recall of later sinks less that one's. facts: the accounts.
    """

    variant: "Variant"
    beside: str
    loss: Loss
    limit: Loss | None
    sinks: Recalls
    later_beside: Interval | None
    tags: Tags
    facts: dict[str, Any]


def judged(seen: "Mapping[Variant, Seen]") -> list[Judged]:
    """Every variant in its order; the first is the dense model."""
    dense = next(iter(seen.values()))
    return [_judged(variant, here, dense, _beside(variant, seen)) for variant, here in seen.items()]


def _beside(
    variant: "Variant", seen: "Mapping[Variant, Seen]"
) -> "tuple[str, Seen] | tuple[str, None]":
    """The first with the same sparsity that is the method's own, or Wanda's for the first one."""
    here = [other for other in seen if other.sparsity == variant.sparsity]
    own = next(other for other in here if other.method == variant.method)
    wanda = next((other for other in here if other.method == BESIDE), own)
    other = own if own != variant else wanda
    return (other.name, seen[other]) if other != variant else ("", None)


def _judged(
    variant: "Variant",
    here: "Seen",
    dense: "Seen",
    other: "tuple[str, Seen] | tuple[str, None]",
) -> Judged:
    name, beside = other
    counts = ratios(here.sinks, dense.sinks)
    later = limit = None
    if beside is not None:
        later = difference(ratios(beside.sinks, dense.sinks).later_recall, counts.later_recall)
    if len(here.limit_nll):
        long = None if beside is None else beside.limit_nll
        limit = _loss(here.limit_nll, dense.limit_nll, long)
    return Judged(
        variant=variant,
        beside=name,
        loss=_loss(here.nll, dense.nll, None if beside is None else beside.nll),
        limit=limit,
        sinks=recalls(counts),
        later_beside=later,
        tags=_tags(here.tags, dense.tags),
        facts=here.facts,
    )


def _loss(
    nll: Float[np.ndarray, " windows"],
    dense: Float[np.ndarray, " windows"],
    other: Float[np.ndarray, " windows"] | None,
) -> Loss:
    # A broken model's loss can be past what exp holds.
    ppl = math.exp(min(float(nll.mean()), 700.0))
    several = len(nll) > 1
    return Loss(
        ppl,
        len(nll),
        interval(nll - dense) if several else None,
        interval(nll - other) if several and other is not None else None,
    )


def _tags(
    found: Float[np.ndarray, "place sequences 4"], dense: Float[np.ndarray, "place sequences 4"]
) -> Tags:
    def over(values: Float[np.ndarray, "place sequences"]) -> Interval | None:
        # A sequence in which no head's sinks catch two groups has nothing to say.
        some = ~np.isnan(values).all(axis=0)
        return interval(np.nanmean(values[:, some], axis=0)) if some.sum() > 1 else None

    eta2, eta2_null, ari, ari_null = np.moveaxis(found, -1, 0)
    return Tags(
        eta2=over(eta2 - eta2_null),
        ari=over(ari - ari_null),
        null=over(ari_null),
        to_dense=over(ari - dense[..., 2]),
    )
