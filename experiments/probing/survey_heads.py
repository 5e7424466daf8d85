"""Heads over prompts: which keep a sink, which do nothing, and whether they are the same ones."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from experiments.intervals import Interval
from experiments.probing.bootstrap import over_prompts
from mech.probes import dormant, specialised
from mech.probes.specialised import Kept, Stability

ENOUGH = 4
"""Prompts below which no two halves are compared."""


@dataclass(frozen=True)
class Keepers:
    """Heads that keep a sink: in at least `specialised.LEAST` of the prompts.

    count: the heads with a sink in one prompt. always, never: how many heads are in the set, and
    how many never have one. sure: of the set, those whose Wilson interval lies above one half.
    """

    count: Interval | None
    share: Kept
    always: int
    sure: int
    never: int
    stability: Stability | None


@dataclass(frozen=True)
class Dormant:
    """Heads dormant on a prompt: by attention, by output, by both.

    always: heads so in at least `specialised.LEAST` of the prompts; sometimes: in some prompts
    and not in all others (the active-dormant ones). by_layer: a prompt's mean count.
    """

    resting: Interval | None
    quiet: Interval | None
    both: Interval | None
    resting_always: int
    resting_sometimes: int
    quiet_always: int
    quiet_sometimes: int
    by_layer: Float[np.ndarray, " layer"]


@dataclass(frozen=True)
class HeadsFound:
    """first: heads with the first token as a sink; later: with a guarded later one."""

    heads: int
    first: Keepers
    later: Keepers
    dormant: Dormant


def heads_found(
    first: Bool[np.ndarray, "prompt layer head"],
    later: Bool[np.ndarray, "prompt layer head"],
    mass: Float[np.ndarray, "prompt layer head"],
    output: Float[np.ndarray, "prompt layer head"],
) -> HeadsFound:
    """From each prompt's sinks, mass on the first token, and output norms over the layer's."""
    resting, quiet = dormant.resting(mass), dormant.quiet(output)
    return HeadsFound(
        heads=first[0].size,
        first=_keepers(first),
        later=_keepers(later),
        dormant=Dormant(
            resting=_count(resting),
            quiet=_count(quiet),
            both=_count(resting & quiet),
            resting_always=_always(resting),
            resting_sometimes=_sometimes(resting),
            quiet_always=_always(quiet),
            quiet_sometimes=_sometimes(quiet),
            by_layer=resting.mean(axis=0).sum(axis=-1),
        ),
    )


def _keepers(has: Bool[np.ndarray, "prompt layer head"]) -> Keepers:
    share = specialised.kept(has)
    inside = share.share >= specialised.LEAST
    return Keepers(
        count=_count(has),
        share=share,
        always=int(inside.sum()),
        sure=int((inside & (share.low > 0.5)).sum()),
        never=int((share.share == 0).sum()),
        stability=specialised.stability(has) if len(has) >= ENOUGH else None,
    )


def _count(has: Bool[np.ndarray, "prompt layer head"]) -> Interval | None:
    return over_prompts(has.sum(axis=(1, 2)).astype(float))


def _always(has: Bool[np.ndarray, "prompt layer head"]) -> int:
    return int((has.mean(axis=0) >= specialised.LEAST).sum())


def _sometimes(has: Bool[np.ndarray, "prompt layer head"]) -> int:
    share = has.mean(axis=0)
    return int(((share > 0) & (share < specialised.LEAST)).sum())
