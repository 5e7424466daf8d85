"""The links of the chain: how each is broken, beside a control, and how each is held.

low rank -> outliers -> sinks -> tags -> segments -> few-shot. A trial breaks one link; a control
changes as much elsewhere; with a mediator held the rest of the model sees the break, and the
mediator is what it was in the dense model (experiments/parts/chain/holds.py).
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from experiments import naming
from experiments.parts.chain.holds import (
    Changes,
    HoldSinks,
    HoldTags,
    Stream,
    erased,
    held_along,
    put,
)
from experiments.parts.chain.one_pass import Dense, Place
from mech.edits import Block, Edit, Mean, RandomDirection, Remove
from mech.reach import Sinks, Where

LOW_RANK, OUTLIERS, SINKS, TAGS, SEGMENTS = "low rank", "outliers", "sinks", "tags", "segments"
LINKS = (LOW_RANK, OUTLIERS, SINKS, TAGS, SEGMENTS)


class Aim(NamedTuple):
    """What is broken and looked at, found on other text than is judged.

    early: the layers whose sinks are blocked and whose tags are removed, in the heads `heads`
    (None: all). places: heads whose outputs are grouped. blocks: those behind which segments are
    erased, along `basis` or `control` (orthonormal rows) to `mean`; segments are read behind the
    first of them.
    """

    layers: int
    early: tuple[int, ...]
    heads: tuple[int, ...] | None
    places: tuple[Place, ...]
    blocks: tuple[int, ...]
    basis: dict[int, Float[Tensor, "k d_model"]]
    control: dict[int, Float[Tensor, "k d_model"]]
    mean: dict[int, Float[Tensor, " d_model"]]


class Trial(NamedTuple):
    """One row: a link broken in one way (or its control), perhaps with a mediator held."""

    link: str
    name: str
    control: bool = False
    weights: str = ""  # the operators that stand in W_Q, W_K meanwhile, by their name in `naming`
    held: str = ""

    @property
    def key(self) -> str:
        """How the trial is called in tables and in a run's units."""
        held = f"; {self.held} held" if self.held else ""
        return f"{self.link}: {self.name}{held}"


OFF, PLAIN = "low-rank term off", "as many nonzeros"
TOP, RANDOM = "top component gone", "a random component of equal norm gone"
ZERO, BESIDE_THEM = "zeroed", "as large ones put into random coordinates"
BLOCK, BLOCKED = "blocked", "as many random tokens blocked"
REMOVE, TURNED, MEAN = "removed", "as much removed in random directions", "mean over queries"
ERASE, ERASED = "erased", "a random direction of equal variance erased"
ANY = "random tokens"  # held: what queries pay to as many random tokens

CAUSES = (
    Trial(LOW_RANK, OFF, weights=naming.SPARSE),
    Trial(LOW_RANK, PLAIN, True, naming.PLAIN),
    Trial(LOW_RANK, TOP, weights=naming.TOP),
    Trial(LOW_RANK, RANDOM, True, naming.NORM),
    Trial(OUTLIERS, ZERO),
    Trial(OUTLIERS, BESIDE_THEM, True),
    Trial(SINKS, BLOCK),
    Trial(SINKS, BLOCKED, True),
    Trial(TAGS, REMOVE),
    Trial(TAGS, TURNED, True),
    Trial(TAGS, MEAN),
    Trial(SEGMENTS, ERASE),
    Trial(SEGMENTS, ERASED, True),
)
BESIDE = {
    (LOW_RANK, OFF): PLAIN,
    (LOW_RANK, TOP): RANDOM,
    (OUTLIERS, ZERO): BESIDE_THEM,
    (SINKS, BLOCK): BLOCKED,
    (TAGS, REMOVE): TURNED,
    (TAGS, MEAN): TURNED,
    (SEGMENTS, ERASE): ERASED,
}
"""Of every break, the control that its effect is taken beside."""
HOLDS = (
    ((LOW_RANK, OFF), (OUTLIERS, SINKS, TAGS, ANY)),
    ((LOW_RANK, TOP), (OUTLIERS, SINKS, TAGS)),
    ((OUTLIERS, ZERO), (SINKS, TAGS)),
    ((SINKS, BLOCK), (OUTLIERS, TAGS)),
    ((TAGS, REMOVE), (SEGMENTS,)),
)


def trials(links: tuple[str, ...]) -> list[Trial]:
    """Every break of these links, every control, every mediator that comes after."""
    causes = [trial for trial in CAUSES if trial.link in links]
    by_name = {(trial.link, trial.name): trial for trial in causes}
    held = [
        by_name[cause]._replace(held=mediator)
        for cause, mediators in HOLDS
        for mediator in mediators
        if cause in by_name
    ]
    return causes + held


def changes(
    trial: Trial, aim: Aim, named: Sinks, random: Sinks, dense: Dense, seed: int
) -> Changes:
    """What the trial does to one batch; changed weights are the caller's."""
    broken = _broken(trial, aim, named, random, dense, seed)
    return broken + _held(trial, aim, named, random, dense)


def _broken(
    trial: Trial, aim: Aim, named: Sinks, random: Sinks, dense: Dense, seed: int
) -> Changes:
    early = Where(aim.early, named, aim.heads)
    if trial.link == OUTLIERS:
        by_block = _zeroed if trial.name == ZERO else _doubled
        return Changes(streams={b: (by_block(dense, b, seed),) for b in dense.mask})
    if trial.link == SEGMENTS:
        basis = aim.basis if trial.name == ERASE else aim.control
        ordinary = {b: ~dense.mask[b].any(dim=-1) for b in aim.blocks}
        return Changes(
            streams={b: (erased(basis[b], aim.mean[b], ordinary[b]),) for b in aim.blocks}
        )
    edits: dict[tuple[str, str], Edit] = {
        (SINKS, BLOCK): Block(early),
        (SINKS, BLOCKED): Block(Where(aim.early, random, aim.heads)),
        (TAGS, REMOVE): Remove(early),
        (TAGS, TURNED): RandomDirection(early, seed, added=True),
        (TAGS, MEAN): Mean(Where(tuple(range(aim.layers)), named)),
    }
    edit = edits.get((trial.link, trial.name))
    return Changes() if edit is None else Changes((edit,))


def _held(trial: Trial, aim: Aim, named: Sinks, random: Sinks, dense: Dense) -> Changes:
    every = tuple(range(aim.layers))
    if trial.held == OUTLIERS:
        return Changes(streams={b: (put(dense.mask[b], dense.value[b]),) for b in dense.mask})
    if trial.held == SINKS:
        return Changes((HoldSinks(Where(every, named), dense.sinks.weight),))
    if trial.held == ANY:
        return Changes((HoldSinks(Where(every, random), dense.random.weight),))
    if trial.held == TAGS:
        blocked = aim.early if trial.link == SINKS else ()
        others = tuple(layer for layer in every if layer not in blocked)
        tag = dense.sinks.tag
        return Changes(
            (
                HoldTags(Where(blocked, named), tag, absent=aim.heads),
                HoldTags(Where(others, named), tag),
            )
        )
    if trial.held == SEGMENTS:
        along = {b: dense.value[b] @ aim.basis[b].mT for b in aim.blocks}
        return Changes(streams={b: (held_along(aim.basis[b], along[b]),) for b in aim.blocks})
    return Changes()


def _zeroed(dense: Dense, block: int, seed: int) -> Stream:
    """h = 0 where the dense stream is massive."""
    return put(dense.mask[block], torch.zeros_like(dense.value[block]))


def _doubled(dense: Dense, block: int, seed: int) -> Stream:
    """The massive numbers stand a second time in their tokens, in coordinates π of theirs.

    As large a change as `_zeroed`, and what is massive stays.
    """
    mask, value = dense.mask[block], dense.value[block]
    order = np.random.default_rng(seed).permutation(mask.shape[-1])
    return put(mask[..., order] & ~mask, value[..., order])
