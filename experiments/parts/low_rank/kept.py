"""Sinks of a changed model: how many, and how many of them the dense model has."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from experiments.findings import Finding, Region
from experiments.intervals import Interval
from experiments.recalls import Ratios, ratios
from mech.probes import sinks

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from experiments.parts.work import Work


class Sinks(NamedTuple):
    """Which (layer, head, token) have α > 0.1 in each sequence (equation 1 of Gu et al. 2025)."""

    flags: Bool[np.ndarray, "layer sequences head key"]

    @property
    def raw(self) -> Float[np.ndarray, " sequences"]:
        """All of a sequence, as the papers count: with the last tokens that every head rests on."""
        return self.flags.sum(axis=(0, 2, 3)).astype(np.float64)

    @property
    def guarded(self) -> Float[np.ndarray, " sequences"]:
        """First tokens, and later ones but the last 16 (`mech.probes.sinks.guarded`)."""
        kept = sinks.guarded(self.flags.shape[-1])
        kept[0] = True
        return self.flags[..., kept].sum(axis=(0, 2, 3)).astype(np.float64)

    def of(self, dense: "Sinks") -> Ratios:
        """Recall and precision of the dense model's set, sequence by sequence."""
        return ratios(self.flags, dense.flags)


def read(work: "Work") -> Sinks:
    """The sinks of the model as it is now, on the sink sequences."""
    from experiments import measure

    scores = measure.sink_scores(work.loaded.model, work.sequences, lambda _: None)
    return Sinks(sinks.sinks(scores, measure.EPSILON))


def finding(
    claim: str, case: str, effect: Interval | None, unit: str, claimed: Region, control: str
) -> Finding:
    """A finding over sequences; None is a share of sinks where the dense model has none."""
    note = "" if effect else "the dense model has no such sinks here"
    return Finding(claim, case, effect, unit, "sequences", claimed, control, note)
