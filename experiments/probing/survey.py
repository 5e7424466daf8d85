"""Every kind of sink and outlier of one model on a set of prompts, in one pass.

Blocks are reduced while they are in memory (`survey_read.py`), so that what is kept is a few
numbers a token and layer. Units are prompts: every interval is over them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedModel

from experiments.probing import survey_projections, survey_streams
from experiments.probing.survey_counts import SinksFound, sinks_found
from experiments.probing.survey_heads import HeadsFound, heads_found
from experiments.probing.survey_read import NEARLY, Reader, Reduced
from experiments.probing.survey_secondary import Place, Tracks, places
from experiments.probing.survey_stacked import Stacked
from experiments.probing.survey_streams import MassiveFound, Rule, massive_found
from experiments.probing.survey_weakening import Weakening, weakening
from experiments.progress import Advance
from mech.capture import capture_blocks
from mech.errors import BadInput
from mech.masks import padding
from mech.probes import massive, reach, sinks

AT_ONCE = 4
"""Prompts in one pass."""


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
    tracks = followed(read, ids.cpu().numpy(), real.cpu().numpy())
    found = Stacked(read)
    return Survey(
        epsilon=epsilon,
        prompts=len(ids),
        shortest=int(lengths.min()),
        longest=int(lengths.max()),
        layers=len(read[0]),
        sinks=sinks_found(found, tracks),
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


def followed(
    read: list[list[Reduced]],
    ids: Int[np.ndarray, "prompt seq"],
    real: Bool[np.ndarray, "prompt seq"],
) -> list[Tracks]:
    """Every prompt through the layers; `read` by group of prompts and block."""
    later = reach.later_keys(real, reach.causal_reach(real))
    first = reach.first_real(real)
    found = Stacked(read)
    entering = found.of("entering")[:, 0]
    fields = ("norm", "cosine", "score", "heads_on", "attn_along", "mlp_along")
    arrays = {field: found.of(field) for field in fields}
    return [
        Tracks(
            **{field: array[i] for field, array in arrays.items()},
            ids=ids[i],
            later=later[i],
            first=int(first[i]),
            entering=float(entering[i]),
        )
        for i in range(len(ids))
    ]


def _heads(found: Stacked) -> HeadsFound:
    return heads_found(
        found.counted("exact", "first"),
        found.counted("exact", "later") > 0,
        found.of("mass"),
        found.of("output"),
    )


def _rules(
    found: Stacked,
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
