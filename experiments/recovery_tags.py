"""Do the probes and interventions find planted tags: caught, written, carried, read, removed?"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from experiments.recovery import Tally, alphas, compare, counted
from mech.attention import pattern_columns
from mech.capture import capture_blocks
from mech.causal import elsewhere, intervene
from mech.edits import Edit, Project, RandomDirection, Remove, Swap, Transplant
from mech.heads import head_weights
from mech.planted import expect
from mech.planted.build import Planted
from mech.planted.plan import BOS, RAISED, SEP, STOP, TAG
from mech.planted.stream import directions
from mech.probes import agreement, catch, sinks
from mech.probes.tags import of_sinks, tags
from mech.reach import Sinks, Where
from mech.trace import BlockTrace

MOST = 0.5
"""A query is caught by the sink that has at least this much of its attention."""
ALIKE = 0.9
"""Adjusted Rand index from which an output groups by the sinks."""


class Effect(NamedTuple):
    """What an edit does to the reader, root mean square over the last segment: as predicted, as
    measured, and the difference of the two, in units of the predicted effect of removing tags."""

    edit: str
    predicted: float
    measured: float
    error: float


def recover_tags(made: Planted, blocks: list[BlockTrace]) -> list[Tally]:
    """Who is caught by which sink, what is written on them, and how long they keep it."""
    return [_heads(made, blocks), *_catch(made, blocks), *_release(made, blocks)]


def segments(made: Planted) -> np.ndarray:
    """0, 1, 2: the tokens from BOS, SEP and STOP on."""
    ids = made.tokens.numpy()
    return (ids == SEP).cumsum(axis=1) + (ids == STOP).cumsum(axis=1)


def _heads(made: Planted, blocks: list[BlockTrace]) -> Tally:
    """Which heads' outputs group by their own sinks, of all the heads."""
    found = sinks.sinks(alphas(blocks)) & counted(blocks)[:, None]
    layers, _, heads, _ = found.shape
    seen = np.zeros(found.shape[:3], bool)
    for layer, row, head in np.ndindex(*found.shape[:3]):
        at = np.flatnonzero(found[layer, row, head])
        if len(at) > 1:
            columns = pattern_columns(blocks[layer].heads, at)[row, head]
            labels = catch.caught_by(columns, np.arange(len(at)), least=MOST)
            seen[layer, row, head] = _grouped(blocks[layer].z[row, head], labels)
    truth = np.zeros((layers, heads), bool)
    truth[made.plan.catch] = made.plan.kind == "plants"
    return compare("tagging heads", np.broadcast_to(truth[:, None], seen.shape), seen)


def _grouped(vectors: Float[np.ndarray, "seq d"], labels: np.ndarray) -> bool:
    usable = agreement.usable(labels)
    if usable is None:
        return False
    found = agreement.grouping(vectors[usable], labels[usable], draws=20)
    return found.ari > ALIKE > found.ari_contiguous


def _catch(made: Planted, blocks: list[BlockTrace]) -> list[Tally]:
    """Every token's sink at the catching head, and each sink's tag: norm, share and direction."""
    layer, head = made.plan.catch
    if made.plan.kind != "plants":
        return []
    W_O = head_weights(made.model, layer).W_O
    way, ids, owner = directions(made.plan).tags, made.tokens.numpy(), segments(made)
    caught = written = 0
    for row, at in enumerate(_places(made, BOS, SEP, STOP)):
        weight, value = of_sinks(blocks[layer].heads, row, np.array(at))
        others = np.setdiff1d(np.arange(ids.shape[1]), at)
        labels = catch.caught_by(weight[head], np.arange(3), least=MOST)
        caught += int((labels == owner[row])[others].sum())
        found = tags(weight, value, blocks[layer].z[row], W_O)
        for tag in range(3):
            mine = others[owner[row, others] == tag]
            vector = value[head, tag] @ W_O[head]
            written += bool(
                np.all(np.abs(found.norm[head, mine, tag] / TAG - 1) < 0.05)
                and np.all(np.abs(found.share[head, mine, tag] - 1) < 0.05)
                and vector @ way[tag] > 0.99 * np.linalg.norm(vector)
            )
    n = len(ids) * (ids.shape[1] - 3)
    return [
        Tally("tokens caught, by their sink", n, caught, n - caught),
        Tally("tags: norm, share, direction", 3 * len(ids), written, 3 * len(ids) - written),
    ]


def _release(made: Planted, blocks: list[BlockTrace]) -> list[Tally]:
    """At which depths the stream groups by segment: after the catching block, to the end."""
    ids, owner = made.tokens.numpy(), segments(made)
    states = [blocks[0].resid_pre, *[block.resid_post for block in blocks]]
    seen = np.zeros((len(states), len(ids)), bool)
    for depth, row in np.ndindex(*seen.shape):
        ordinary = ~np.isin(ids[row], [BOS, SEP, STOP, RAISED])
        seen[depth, row] = _grouped(states[depth][row, ordinary], owner[row, ordinary])
    after = np.arange(len(states))[:, None] > made.plan.catch[0]
    truth = np.broadcast_to(after & (made.plan.kind == "plants"), seen.shape)
    return [compare("depths at which the stream is tagged", truth, seen)]


def effects(made: Planted, seed: int = 0) -> list[Effect]:
    """The reader under edits of the catching head's tags, beside the closed form and controls."""
    plan, ids, owner = made.plan, made.tokens.numpy(), segments(made)
    layer, head = plan.catch
    whole = expect.carried(plan, ids, plan.read[0])
    none = np.zeros(ids.shape, bool)
    early = owner == 0
    where = Where((layer,), _places(made, BOS, SEP, STOP), (head,))
    first, middle, last = (
        Where((layer,), _places(made, token), (head,)) for token in (BOS, SEP, STOP)
    )
    others = elsewhere(where.sinks, ids.shape[1], avoid=_places(made, RAISED), seed=seed)
    some = tuple(tuple(range(1, row.index(True))) for row in (owner == 1).tolist())
    moved = expect.Carried(whole.last | early, ~none)
    edits: list[tuple[str, list[Edit], expect.Carried]] = [
        ("remove the tags", [Remove(where)], expect.Carried(none, none)),
        ("project the tags out", [Project(where)], expect.Carried(none, none)),
        ("swap SEP's and STOP's", [Swap(middle, last.sinks)], expect.Carried(owner == 1, ~none)),
        ("carry STOP's to segment 1", [Remove(first), Transplant(last, some)], moved),
        ("control: other tokens' values", [Remove(Where((layer,), others, (head,)))], whole),
        ("control: random direction", [RandomDirection(where, seed, added=True)], whole),
    ]
    here = owner == 2
    before, exact = reading(made), expect.read(plan, ids)
    unit = _rms((expect.read(plan, ids, tags=edits[0][2]) - exact)[here])
    found = []
    for name, edit, tagged in edits:
        predicted = expect.read(plan, ids, tags=tagged) - exact
        measured = reading(made, *edit) - before
        rms = (_rms(x[here]) / unit for x in (predicted, measured, measured - predicted))
        found.append(Effect(name, *rms))
    return found


def reading(made: Planted, *edits: Edit) -> Float[np.ndarray, "batch seq"]:
    """What the reader's block writes along `out`, under edits."""
    out = directions(made.plan).out
    with intervene(made.model, *edits) as changed:
        wrote = capture_blocks(changed, made.tokens, lambda b: (b.resid_post - b.resid_pre) @ out)
    return wrote[made.plan.read[0]]


def _places(made: Planted, *tokens: int) -> Sinks:
    """Where these ids stand, in every sequence."""
    hits = np.isin(made.tokens.numpy(), tokens)
    return tuple(tuple(np.flatnonzero(row).tolist()) for row in hits)


def _rms(x: Bool[np.ndarray, " n"] | Float[np.ndarray, " n"]) -> float:
    return float(np.sqrt((x**2).mean()))
