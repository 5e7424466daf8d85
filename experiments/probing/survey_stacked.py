"""What the blocks of every group of prompts were reduced to, as arrays over prompts and layers."""

import numpy as np
from jaxtyping import Int

from experiments.probing.survey_read import Reduced
from experiments.probing.survey_secondary import Tracks
from mech.probes.spells import Spell, spells


class Stacked:
    """What the blocks of every group were reduced to, as arrays over prompts and layers."""

    def __init__(self, read: list[list[Reduced]]) -> None:
        self.read = read

    def of(self, field: str) -> np.ndarray:
        """prompt layer …"""
        groups = [np.stack([getattr(b, field) for b in group], axis=1) for group in self.read]
        return np.concatenate(groups)

    def counted(self, reading: str, field: str) -> np.ndarray:
        """prompt layer head, of `exact` or `seen`."""
        groups = [
            np.stack([getattr(getattr(b, reading), field) for b in group], axis=1)
            for group in self.read
        ]
        return np.concatenate(groups)

    def spells(self, field: str) -> list[list[Spell]]:
        """Of every prompt by itself."""
        found = []
        for group in self.read:
            here: list[list[Spell]] = [[] for _ in group[0].norm]
            for spell in spells(getattr(block, field) for block in group):
                here[spell.batch].append(spell)
            found += here
        return found

    def first(self, tracks: list[Tracks]) -> Int[np.ndarray, " prompt"]:
        """Where each prompt starts."""
        return np.array([track.first for track in tracks])
