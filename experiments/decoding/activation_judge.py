"""What `activation` found of every variant, with intervals: beside dense, TEAL, the best."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from experiments.decoding.activation import DENSE, TEAL, Variant
from experiments.intervals import Interval, interval
from experiments.recalls import clear

if TYPE_CHECKING:
    from experiments.decoding.activation_measure import Seen

TOLERANCE = 0.005
"""Of the dense bytes: who predicts better by reading more than this above the other has not won."""


class Judged(NamedTuple):
    """One variant: exp of the mean loss; paired differences in nats a token, over windows.

    teal: against TEAL's uniform recipe at the same budget. best: against the baseline of lowest
    loss at that budget, `rival`, for plans that a search found. planned, read: shares of bytes,
    as budgeted and as counted; teal_read, best_read: what the other one really read. whole:
    nothing is saved. saved: thresholds are a recipe's.
    """

    variant: Variant
    ppl: float
    planned: float
    read: float
    whole: bool
    dense: Interval
    teal: Interval | None
    best: Interval | None = None
    rival: str = ""
    teal_read: float = math.nan
    best_read: float = math.nan
    saved: bool = False


def bought(difference: Interval | None, read: float, other: float) -> bool:
    """Whether what is clear of zero is between unequals: the better one read more, by TOLERANCE."""
    return -clear(difference) * (read - other) > TOLERANCE


def judged(seen: "Mapping[Variant, Seen]") -> list[Judged]:
    """Every variant in its order; the first is the dense model."""
    return [_judged(variant, here, seen) for variant, here in seen.items()]


def _judged(variant: Variant, here: "Seen", seen: "Mapping[Variant, Seen]") -> Judged:
    teal = seen.get(Variant(TEAL, variant.sparsity)) if variant.method != TEAL else None
    teal = None if variant == DENSE else teal
    rival = _rival(variant, seen) if variant.plan else None
    best = None if rival is None else seen[rival]
    return Judged(
        variant=variant,
        # A broken model's loss can be past what exp holds.
        ppl=math.exp(min(float(here.nll.mean()), 700.0)),
        planned=here.planned,
        read=here.read,
        whole=here.whole,
        dense=interval(here.nll - seen[DENSE].nll),
        teal=None if teal is None else interval(here.nll - teal.nll),
        best=None if best is None else interval(here.nll - best.nll),
        rival="" if rival is None else rival.method,
        teal_read=math.nan if teal is None else teal.read,
        best_read=math.nan if best is None else best.read,
        saved=here.saved,
    )


def _rival(variant: Variant, seen: "Mapping[Variant, Seen]") -> Variant | None:
    """The baseline of lowest loss among those that read no more than the plan, to 1e-4."""
    fair = [
        other
        for other, one in seen.items()
        if not other.plan and abs(other.sparsity - variant.sparsity) < 1e-4
        if one.planned <= 1 - variant.sparsity + 1e-4
    ]
    return min(fair, key=lambda other: _mean(seen[other].nll), default=None)


def _mean(nll: Float[np.ndarray, " windows"]) -> float:
    return float(nll.mean())
