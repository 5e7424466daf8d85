"""The spells of massive activations: the block that writes one, the block that erases it.

With resid_post = resid_pre + attn_write + mlp_write an entry (token, dimension) that is massive
after a block and not before it was written there, and the two writes say by which half. Sun et
al. 2024, arXiv:2402.17762, find that they appear after one block and vanish in the last ones.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

NEVER = -1
"""The birth of an entry that was massive when block 0 was entered, the death of one that lasts."""


class Turn(NamedTuple):
    """An entry that became massive in a block (born), or ceased to be.

    attn and mlp are NaN where the block's writes do not add up to its change.
    """

    batch: int
    token: int
    dim: int
    born: bool
    before: float
    attn: float
    mlp: float
    after: float


class Spell(NamedTuple):
    """One massive activation from the block that wrote it to the block that erased it.

    lifetime: the number of states, after blocks birth, …, death − 1, in which it is massive.
    by_mlp, erased_by_mlp: the MLP's part of that block's change of the entry, NaN where unknown.
    """

    batch: int
    token: int
    dim: int
    birth: int
    death: int
    lifetime: int
    value: float
    by_mlp: float
    erased_by_mlp: float


def turns(
    before: Bool[np.ndarray, "batch seq d_model"],
    after: Bool[np.ndarray, "batch seq d_model"],
    resid_pre: Float[np.ndarray, "batch seq d_model"],
    resid_post: Float[np.ndarray, "batch seq d_model"],
    attn_write: Float[np.ndarray, "batch seq d_model"] | None,
    mlp_write: Float[np.ndarray, "batch seq d_model"] | None,
) -> list[Turn]:
    """The entries that a block changed from one to the other, by `massive.massive_entries`."""
    found = []
    for b, t, j in np.argwhere(before != after).tolist():
        attn, mlp = (np.nan if x is None else float(x[b, t, j]) for x in (attn_write, mlp_write))
        ends = float(resid_pre[b, t, j]), float(resid_post[b, t, j])
        found.append(Turn(b, t, j, bool(after[b, t, j]), ends[0], attn, mlp, ends[1]))
    return found


def spells(blocks: Iterable[list[Turn]]) -> list[Spell]:
    """Births and deaths of every block, in order, joined into spells, in order of their birth."""
    alive: dict[tuple[int, int, int], tuple[int, Turn]] = {}
    done = []
    layers = 0
    for layer, here in enumerate(blocks):
        layers += 1
        for turn in here:
            place = turn[:3]
            if turn.born:
                alive[place] = layer, turn
            else:
                done.append(_spell(place, alive.pop(place, None), layer, turn))
    done += [_spell(place, birth, layers, None) for place, birth in alive.items()]
    return sorted(done, key=lambda spell: (spell.birth, *spell[:3]))


def _spell(
    place: tuple[int, int, int], birth: tuple[int, Turn] | None, last: int, death: Turn | None
) -> Spell:
    first, born = birth or (NEVER, None)
    value = born.after if born else death.before if death else float("nan")
    return Spell(
        batch=place[0],
        token=place[1],
        dim=place[2],
        birth=first,
        death=last if death else NEVER,
        lifetime=last - max(first, 0),
        value=value,
        by_mlp=_part(born),
        erased_by_mlp=_part(death),
    )


def _part(turn: Turn | None) -> float:
    return turn.mlp / (turn.attn + turn.mlp) if turn and turn.attn + turn.mlp else float("nan")
