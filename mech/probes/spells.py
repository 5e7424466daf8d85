"""The spells of massive activations: the block that writes one, the block that erases it.

With resid_post = resid_pre + attn_write + mlp_write an entry (token, dimension) is followed
through the blocks in which it is massive, and the two writes say which half of a block made or
erased it. Sun et al. 2024, arXiv:2402.17762, find that massive activations appear after one block
and vanish in the last ones.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

NEVER = -1
"""The birth of an entry that was massive when block 0 was entered, the death of one that lasts."""


class Step(NamedTuple):
    """A block's change of an entry that is massive before it (was), after it (now), or both.

    attn and mlp are NaN where the block's writes do not add up to its change.
    """

    batch: int
    token: int
    dim: int
    was: bool
    now: bool
    before: float
    attn: float
    mlp: float
    after: float


class Spell(NamedTuple):
    """One massive activation from the block in which it passes the limit to that where it falls.

    lifetime: the number of states, after blocks birth, …, death − 1, in which it is massive.
    value: the largest of it. writer: the block that adds most to it, which need not be that of
    its birth: the limit may be passed a little by one block and far by the next (NEVER where no
    block of the spell adds to it). by_mlp: the MLP's part of what the writer adds; erased_by_mlp:
    of all that is taken from the entry between its largest value and its death, which may be the
    work of several blocks. NaN where unknown.
    """

    batch: int
    token: int
    dim: int
    birth: int
    death: int
    lifetime: int
    value: float
    writer: int
    by_mlp: float
    erased_by_mlp: float


def steps(
    before: Bool[np.ndarray, "batch seq d_model"],
    after: Bool[np.ndarray, "batch seq d_model"],
    resid_pre: Float[np.ndarray, "batch seq d_model"],
    resid_post: Float[np.ndarray, "batch seq d_model"],
    attn_write: Float[np.ndarray, "batch seq d_model"] | None,
    mlp_write: Float[np.ndarray, "batch seq d_model"] | None,
) -> list[Step]:
    """What a block did to the entries that are massive at either of its ends."""
    found = []
    # Flat places first: of three-dimensional arrays as empty as these numpy finds them slowly.
    places = np.unravel_index(np.flatnonzero(before | after), before.shape)
    for b, t, j in zip(*(axis.tolist() for axis in places), strict=True):
        attn, mlp = (np.nan if x is None else float(x[b, t, j]) for x in (attn_write, mlp_write))
        was, now = bool(before[b, t, j]), bool(after[b, t, j])
        ends = float(resid_pre[b, t, j]), float(resid_post[b, t, j])
        found.append(Step(b, t, j, was, now, ends[0], attn, mlp, ends[1]))
    return found


def spells(blocks: Iterable[list[Step]]) -> list[Spell]:
    """The steps of every block, in order, joined into spells, in order of their birth."""
    alive: dict[tuple[int, int, int], list[tuple[int, Step]]] = {}
    done = []
    layers = 0
    for layer, here in enumerate(blocks):
        layers += 1
        for step in here:
            alive.setdefault(step[:3], []).append((layer, step))
            if not step.now:
                done.append(_spell(alive.pop(step[:3]), layer))
    done += [_spell(taken, NEVER, layers) for taken in alive.values()]
    return sorted(done, key=lambda spell: (spell.birth, *spell[:3]))


def _spell(taken: list[tuple[int, Step]], death: int, layers: int = 0) -> Spell:
    """From all steps of one entry, of which the last erases it unless death is NEVER."""
    birth = NEVER if taken[0][1].was else taken[0][0]
    last = taken[-1][1]
    sizes = [abs(step.after) if step.now else 0.0 for _, step in taken]
    peak = int(np.argmax(sizes))
    largest, fall = taken[peak][1].after, [step for _, step in taken[peak + 1 :]]
    if abs(taken[0][1].before) > sizes[peak]:  # it came in larger than it ever is after a block
        largest, fall = taken[0][1].before, [step for _, step in taken]
    writer, wrote = max(taken, key=lambda item: _growth(item[1]))
    grew = _growth(wrote) > 0
    return Spell(
        batch=last.batch,
        token=last.token,
        dim=last.dim,
        birth=birth,
        death=death,
        lifetime=(layers if death == NEVER else death) - max(birth, 0),
        value=largest,
        writer=writer if grew else NEVER,
        by_mlp=_part([wrote]) if grew else float("nan"),
        erased_by_mlp=float("nan") if death == NEVER else _part(fall),
    )


def _growth(step: Step) -> float:
    """How much further from 0 the entry is after the block; 0 where it is nearer."""
    return abs(step.after - step.before) if abs(step.after) > abs(step.before) else 0.0


def _part(taken: list[Step]) -> float:
    """Σ mlp / Σ (attn + mlp): of the sums, because single blocks' writes may cancel."""
    mlp = sum(step.mlp for step in taken)
    total = mlp + sum(step.attn for step in taken)
    return mlp / total if total else float("nan")
