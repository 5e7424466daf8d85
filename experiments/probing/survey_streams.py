"""Massive activations and outlier features over prompts."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from experiments.intervals import Interval
from experiments.probing.bootstrap import over_prompts
from mech.probes import outliers
from mech.probes.spells import NEVER, Spell

NAMED = 8
"""Kinds of massive activation and dimensions to name."""


@dataclass(frozen=True)
class Massives:
    """Massive activations of one kind: first token or later, one dimension, one writer.

    death: the block that most often ends them (NEVER: they last); agreed: the share of the
    spells with that death. by_mlp, erased_by_mlp: the MLP's part of what the writer adds, and
    of all that is taken from them afterwards.
    """

    at_first: bool
    dim: int
    count: int
    value: float
    writer: int
    death: int
    agreed: float
    lifetime: Interval | None
    by_mlp: Interval | None
    erased_by_mlp: Interval | None


@dataclass(frozen=True)
class MassiveFound:
    """count: spells a prompt; later: of tokens after the first; kinds: most frequent first."""

    ratio: float
    count: Interval | None
    later: Interval | None
    kinds: list[Massives]


def massive_found(
    spells: list[list[Spell]], first: Int[np.ndarray, " prompt"], ratio: float
) -> MassiveFound:
    """From every prompt's spells."""
    starts = first.tolist()
    at_first = [[s.token == f for s in found] for found, f in zip(spells, starts, strict=True)]
    groups: dict[tuple[bool, int, int], list[tuple[int, Spell]]] = {}
    for prompt, (found, marks) in enumerate(zip(spells, at_first, strict=True)):
        for spell, mark in zip(found, marks, strict=True):
            groups.setdefault((mark, spell.dim, spell.writer), []).append((prompt, spell))
    most = sorted(groups.items(), key=lambda item: -len(item[1]))[:NAMED]
    return MassiveFound(
        ratio=ratio,
        count=over_prompts(np.array([len(found) for found in spells], float)),
        later=over_prompts(np.array([len(m) - sum(m) for m in at_first], float)),
        kinds=[_kind(*place, found) for place, found in most],
    )


def _kind(at_first: bool, dim: int, writer: int, found: list[tuple[int, Spell]]) -> Massives:
    death, times = Counter(spell.death for _, spell in found).most_common(1)[0]
    return Massives(
        at_first=at_first,
        dim=dim,
        count=len(found),
        value=float(np.mean([spell.value for _, spell in found])),
        writer=writer,
        death=death,
        agreed=times / len(found),
        lifetime=_each(found, "lifetime"),
        by_mlp=_each(found, "by_mlp"),
        erased_by_mlp=_each([f for f in found if f[1].death != NEVER], "erased_by_mlp"),
    )


def _each(found: list[tuple[int, Spell]], field: str) -> Interval | None:
    """Mean over prompts of the mean over a prompt's spells."""
    values: dict[int, list[float]] = {}
    for prompt, spell in found:
        values.setdefault(prompt, []).append(getattr(spell, field))
    return over_prompts(np.array([np.mean(v) for v in values.values()], float))


@dataclass(frozen=True)
class Rule:
    """The dimensions that one rule names: how many a prompt, and in what share of the prompts.

    layers: the share of a rule's layers, mean over prompts, in which the dimension is flagged; NaN
    where the rule looks at all layers together.
    """

    name: str
    reads: str
    count: Interval | None
    dims: dict[int, tuple[float, float]]


def prevalent(
    hits: Int[np.ndarray, "prompt layer d_model"], ordinary: Int[np.ndarray, "prompt layer"]
) -> Rule:
    """|x_j| > 6 medians in at least 95 % of the ordinary tokens, in at least half of the layers."""
    seen = ordinary[..., None]
    share = np.divide(hits, seen, out=np.zeros(hits.shape), where=seen > 0)
    name = f"above {outliers.FACTOR:.0f} medians in {outliers.SHARE:.0%} of the ordinary tokens"
    return _by_layer(name, "stream after every block", share >= outliers.SHARE)


def spread(deviation: Float[np.ndarray, "prompt layer d_model"]) -> Rule:
    """Standard deviation over tokens more than 3 σ above the others', in half of the layers."""
    above = outliers.beyond_sigmas(deviation) & (deviation > deviation.mean(axis=-1, keepdims=True))
    return _by_layer("deviation over tokens above 3 σ", "stream after every block", above)


def int8(
    large: Int[np.ndarray, "prompt layer d_model"], tokens: Int[np.ndarray, " prompt"]
) -> Rule:
    """Dettmers et al.'s rule on the inputs of the projections, both of a block's apart."""
    flags = outliers.int8_from_counts(large, tokens)
    dims = {int(j): (float(flags[:, j].mean()), float("nan")) for j in np.flatnonzero(flags.any(0))}
    count = over_prompts(flags.sum(axis=1).astype(float))
    name = "|x| ≥ 6 in 25% of the layers and 6% of the tokens"
    return Rule(name, "inputs of attention and MLP", count, _most(dims))


def weights(role: str, values: Float[np.ndarray, "layer d_model"]) -> Rule:
    """Kovaleva et al.'s rule on one kind of norm weight: no prompt is in it, and no interval."""
    flags = outliers.beyond_sigmas(values)
    found = np.flatnonzero(outliers.consistent(flags))
    dims = {int(j): (1.0, float(flags[:, j].mean())) for j in found}
    return Rule("weight beyond 3 σ in half of the layers", f"weights of {role}", None, _most(dims))


def _by_layer(name: str, reads: str, flags: Bool[np.ndarray, "prompt layer d_model"]) -> Rule:
    layers = flags.mean(axis=1)
    inside = layers >= 0.5
    dims = {
        int(j): (float(inside[:, j].mean()), float(layers[:, j].mean()))
        for j in np.flatnonzero(inside.any(axis=0))
    }
    return Rule(name, reads, over_prompts(inside.sum(axis=1).astype(float)), _most(dims))


def _most(dims: dict[int, tuple[float, float]]) -> dict[int, tuple[float, float]]:
    ranked = sorted(dims.items(), key=lambda item: (-item[1][0], -np.nan_to_num(item[1][1])))
    return dict(ranked[:NAMED])
