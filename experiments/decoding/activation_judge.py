"""What `activation` found of every variant, with intervals: beside dense, TEAL, the best."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from experiments.decoding.activation import DENSE, TEAL, Variant
from experiments.intervals import Interval, interval

if TYPE_CHECKING:
    from experiments.decoding.activation_read import Seen


class Judged(NamedTuple):
    """One variant: exp of the mean loss; paired differences in nats a token, over windows.

    teal: against TEAL's uniform recipe at the same budget. best: against the baseline of lowest
    loss at that budget, `rival`, for plans that a search found. planned, read: shares of bytes,
    as budgeted and as counted. whole: nothing is saved.
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


def judged(seen: "Mapping[Variant, Seen]") -> list[Judged]:
    """Every variant in its order; the first is the dense model."""
    return [_judged(variant, here, seen) for variant, here in seen.items()]


def _judged(variant: Variant, here: "Seen", seen: "Mapping[Variant, Seen]") -> Judged:
    teal = seen.get(Variant(TEAL, variant.sparsity)) if variant.method != TEAL else None
    rival = _rival(variant, seen) if variant.plan else None
    return Judged(
        variant=variant,
        # A broken model's loss can be past what exp holds.
        ppl=math.exp(min(float(here.nll.mean()), 700.0)),
        planned=here.planned,
        read=here.read,
        whole=here.whole,
        dense=interval(here.nll - seen[DENSE].nll),
        teal=None if teal is None or variant == DENSE else interval(here.nll - teal.nll),
        best=None if rival is None else interval(here.nll - seen[rival].nll),
        rival="" if rival is None else rival.method,
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
