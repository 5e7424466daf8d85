"""Sinks a prompt: how many, where in the model, and whether they are the massive tokens."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from experiments.intervals import Interval
from experiments.probing.bootstrap import over_prompts
from experiments.probing.survey_secondary import Tracks
from experiments.probing.survey_stacked import Stacked


@dataclass(frozen=True)
class SinksFound:
    """Sinks a prompt over all heads: by equation 1, and per reachable key (`by_reach_…`).

    windowed: the layers in which some query does not see all keys before it. Where there are none
    both readings agree. missing: the mass that a learned sink takes, mean over heads.
    on_nearly, on_others: the share of its (layer, head) places in which a later token that is
    nearly massive, or any other, is a guarded sink, over the layers that have nearly massive ones.
    """

    first: Interval | None
    later: Interval | None
    later_raw: Interval | None
    total_raw: Interval | None
    by_reach_first: Interval | None
    by_reach_later: Interval | None
    windowed: list[int]
    missing: Interval | None
    first_grid: Float[np.ndarray, "layer head"]
    later_grid: Float[np.ndarray, "layer head"]
    on_nearly: Interval | None
    on_others: Interval | None


def sinks_found(found: Stacked, tracks: list[Tracks]) -> SinksFound:
    """Counts summed over layers and heads, prompt by prompt."""

    def total(reading: str, field: str) -> Interval | None:
        return over_prompts(found.counted(reading, field).sum(axis=(1, 2)).astype(float))

    # Of prompts of unequal length only the longer ones may meet the window.
    windowed = np.any([[block.windowed for block in group] for group in found.read], axis=0)
    on_nearly, on_others = places_on(found, tracks)
    return SinksFound(
        first=total("exact", "first"),
        later=total("exact", "later"),
        later_raw=total("exact", "later_raw"),
        total_raw=total("exact", "total_raw"),
        by_reach_first=total("seen", "first"),
        by_reach_later=total("seen", "later"),
        windowed=np.flatnonzero(windowed).tolist(),
        missing=over_prompts(found.of("missing").mean(axis=(1, 2)).astype(float)),
        first_grid=found.counted("exact", "first").mean(axis=0),
        later_grid=found.counted("exact", "later").mean(axis=0),
        on_nearly=on_nearly,
        on_others=on_others,
    )


def places_on(found: Stacked, tracks: list[Tracks]) -> tuple[Interval | None, Interval | None]:
    """Share of the (layer, head) places in which a nearly massive later token is a sink; others'.

    Of the layers that have nearly massive ones: block l + 1 attends by the state after block l.
    """
    heads = found.of("mass").shape[2]
    rates: tuple[list[float], list[float]] = ([], [])
    for nearly, track in zip(found.of("nearly"), tracks, strict=True):
        heavy = nearly[:-1] & track.later
        layers = heavy.any(axis=1)
        on = track.heads_on[1:] / heads
        for kept, mask in zip(rates, (heavy, ~nearly[:-1] & track.later), strict=True):
            here = on[layers][mask[layers]]
            kept.append(float(here.mean()) if here.size else float("nan"))
    return over_prompts(np.array(rates[0])), over_prompts(np.array(rates[1]))
