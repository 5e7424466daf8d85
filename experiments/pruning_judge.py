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
"""The method that the others are paired with, at the same sparsity."""


class Loss(NamedTuple):
    """Over windows: exp of the mean, and paired differences in nats a token, b - a.

    None where there are fewer than two windows (no interval), or nothing to pair with.
    """

    ppl: float
    windows: int
    to_dense: Interval | None
    to_wanda: Interval | None


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
    """One variant. later_to_wanda: recall of later sinks less Wanda's. facts: the accounts."""

    method: str
    sparsity: float
    loss: Loss
    limit: Loss | None
    sinks: Recalls
    later_to_wanda: Interval | None
    tags: Tags
    facts: dict[str, Any]


def judged(seen: "Mapping[Variant, Seen]") -> list[Judged]:
    """Every variant in its order; the first is the dense model."""
    dense = next(iter(seen.values()))
    found = []
    for variant, here in seen.items():
        wanda = next(
            (s for v, s in seen.items() if v.method == BESIDE and v.sparsity == variant.sparsity),
            None,
        )
        beside = None if variant.method == BESIDE else wanda
        counts = ratios(here.sinks, dense.sinks)
        later = None
        if beside is not None:
            later = difference(ratios(beside.sinks, dense.sinks).later_recall, counts.later_recall)
        limit = None
        if len(here.limit_nll):
            other = None if beside is None else beside.limit_nll
            limit = _loss(here.limit_nll, dense.limit_nll, other)
        found.append(
            Judged(
                variant.method,
                variant.sparsity,
                _loss(here.nll, dense.nll, None if beside is None else beside.nll),
                limit,
                recalls(counts),
                later,
                _tags(here.tags, dense.tags),
                here.facts,
            )
        )
    return found


def _loss(
    nll: Float[np.ndarray, " windows"],
    dense: Float[np.ndarray, " windows"],
    wanda: Float[np.ndarray, " windows"] | None,
) -> Loss:
    # A broken model's loss can be past what exp holds.
    ppl = math.exp(min(float(nll.mean()), 700.0))
    several = len(nll) > 1
    return Loss(
        ppl,
        len(nll),
        interval(nll - dense) if several else None,
        interval(nll - wanda) if several and wanda is not None else None,
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
