"""Every kind of sink and outlier of one model on a set of prompts, in one pass.

Blocks are reduced while they are in memory (`survey_read.py`), so that what is kept is a few
numbers a token and layer. Units are prompts: every interval is over them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from experiments.intervals import Interval
from experiments.probing import survey_projections, survey_streams
from experiments.probing.bootstrap import over_prompts
from experiments.probing.survey_heads import HeadsFound, heads_found
from experiments.probing.survey_read import NEARLY, Reader, Reduced
from experiments.probing.survey_secondary import Place, Tracks, places
from experiments.probing.survey_streams import MassiveFound, Rule, massive_found
from experiments.probing.survey_weakening import Weakening, weakening
from experiments.progress import Advance
from mech.capture import capture_blocks
from mech.errors import BadInput
from mech.masks import padding
from mech.probes import massive, reach, sinks
from mech.probes.spells import Spell, spells

AT_ONCE = 4
"""Prompts in one pass."""


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


@dataclass(frozen=True)
class Survey:
    """What was found on `prompts` prompts of `shortest` to `longest` real tokens."""

    epsilon: float
    prompts: int
    shortest: int
    longest: int
    layers: int
    sinks: SinksFound
    places: list[Place]
    weakening: Weakening
    heads: HeadsFound
    massive: MassiveFound
    nearly: MassiveFound
    rules: list[Rule]


def survey(
    model: PreTrainedModel,
    ids: Int[Tensor, "prompt seq"],
    attention_mask: Int[Tensor, "prompt seq"] | None = None,
    *,
    epsilon: float = sinks.EPSILON,
    advance: Advance = lambda _: None,
) -> Survey:
    """All probes, each with its interval over prompts; None stands where there is nothing to mean.

    Raises BadInput for fewer than two prompts (one has no interval), for a prompt below
    `sinks.SHORTEST` real tokens, and as `capture_blocks` does.
    """
    real = padding(ids, attention_mask)
    lengths = real.sum(dim=1)
    _check(lengths)
    read: list[list[Reduced]] = []
    large: list[Int[np.ndarray, "_ layer d_model"] | None] = []
    masks = [None] * len(ids) if attention_mask is None else attention_mask.split(AT_ONCE)
    for group, mask, here in zip(ids.split(AT_ONCE), masks, real.split(AT_ONCE), strict=False):
        with survey_projections.watching(model, here) as seen:
            read.append(capture_blocks(model, group, Reader(epsilon), mask))
        large.append(seen.counts())
        advance("survey")
    tracks = _tracks(read, ids.cpu().numpy(), real.cpu().numpy())
    found = _Stacked(read)
    return Survey(
        epsilon=epsilon,
        prompts=len(ids),
        shortest=int(lengths.min()),
        longest=int(lengths.max()),
        layers=len(read[0]),
        sinks=_sinks(found, tracks),
        places=places(tracks),
        weakening=weakening(tracks),
        heads=_heads(found),
        massive=massive_found(found.spells("steps"), found.first(tracks), massive.RATIO),
        nearly=massive_found(found.spells("nearly_steps"), found.first(tracks), NEARLY),
        rules=_rules(found, model, large, lengths.cpu().numpy()),
    )


def _check(lengths: Int[Tensor, " prompt"]) -> None:
    if len(lengths) < 2:
        raise BadInput("one prompt has no interval over prompts: give at least two")
    if lengths.min() < sinks.SHORTEST:
        raise BadInput(
            f"prompt {int(lengths.argmin())} has {int(lengths.min())} tokens: below "
            f"{sinks.SHORTEST} a head without preference nears the threshold; give longer prompts"
        )


class _Stacked:
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


def _tracks(read: list[list[Reduced]], ids: np.ndarray, real: np.ndarray) -> list[Tracks]:
    later = reach.later_keys(real, reach.causal_reach(real))
    first = reach.first_real(real)
    found = _Stacked(read)
    fields = ("norm", "cosine", "score", "heads_on", "attn_along", "mlp_along")
    arrays = {field: found.of(field) for field in fields}
    return [
        Tracks(
            **{field: array[i] for field, array in arrays.items()},
            ids=ids[i],
            later=later[i],
            first=int(first[i]),
        )
        for i in range(len(ids))
    ]


def _sinks(found: _Stacked, tracks: list[Tracks]) -> SinksFound:
    def total(reading: str, field: str) -> Interval | None:
        return over_prompts(found.counted(reading, field).sum(axis=(1, 2)).astype(float))

    windowed = np.array([block.windowed for block in found.read[0]])
    on_nearly, on_others = _places_on(found, tracks)
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


def _places_on(found: _Stacked, tracks: list[Tracks]) -> tuple[Interval | None, Interval | None]:
    """Block l + 1 attends by the state after block l."""
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


def _heads(found: _Stacked) -> HeadsFound:
    return heads_found(
        found.counted("exact", "first"),
        found.counted("exact", "later") > 0,
        found.of("mass"),
        found.of("output"),
    )


def _rules(
    found: _Stacked,
    model: PreTrainedModel,
    large: list[Int[np.ndarray, "_ layer d_model"] | None],
    lengths: Int[np.ndarray, " prompt"],
) -> list[Rule]:
    rules = [
        survey_streams.prevalent(found.of("hits"), found.of("ordinary")),
        survey_streams.spread(found.of("deviation")),
    ]
    whole = [counts for counts in large if counts is not None]
    if len(whole) == len(large):
        rules.append(survey_streams.int8(np.concatenate(whole), lengths))
    for role, values in survey_projections.norm_weights(model).items():
        rules.append(survey_streams.weights(role, values))
    return rules
