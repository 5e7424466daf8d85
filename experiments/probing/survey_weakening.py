"""Does the primary sink fade where secondary ones are? (arXiv:2512.22213, claim 3)."""

from dataclasses import dataclass

import numpy as np

from experiments.intervals import Interval
from experiments.probing.bootstrap import over_prompts
from experiments.probing.survey_secondary import Tracks, phases
from mech.probes import secondary
from mech.probes.rank import spearman


@dataclass(frozen=True)
class Weakening:
    """The primary sink's score through the layers, mean α over heads, and what goes with it.

    middle: its mean over the middle third of the layers less that over the others, None below
    three layers. with_number, with_strength: ρ over layers, prompt by prompt, with the number of
    sink-like tokens (in any phase) that a block reads and with the α they draw.
    """

    profile: list[Interval | None]
    middle: Interval | None
    with_number: Interval | None
    with_strength: Interval | None


def weakening(prompts: list[Tracks]) -> Weakening:
    """Does the primary sink fade where others are?"""
    raised = phases(prompts)
    profiles = np.array([track.score[:, track.first] for track in prompts])
    layers = profiles.shape[1]
    middle = None
    if third := layers // 3:
        inside = np.zeros(layers, bool)
        inside[third : layers - third] = True
        apart = profiles[:, inside].mean(axis=1) - profiles[:, ~inside].mean(axis=1)
        middle = over_prompts(apart)
    number, strength = [], []
    for track, profile in zip(prompts, profiles, strict=True):
        flags = [secondary.sink_like(track.cosine, track.within(phase)) for phase in raised]
        like = np.any([*flags, np.zeros(track.cosine.shape, bool)], axis=0) & track.later
        number.append(spearman(profile[1:], like[:-1].sum(axis=1).astype(float)))
        drawn = np.where(like[:-1], track.score[1:], 0.0).sum(axis=1)
        strength.append(spearman(profile[1:], drawn.astype(float)))
    return Weakening(
        profile=[over_prompts(profiles[:, layer]) for layer in range(layers)],
        middle=middle,
        with_number=over_prompts(np.array(number)),
        with_strength=over_prompts(np.array(strength)),
    )
