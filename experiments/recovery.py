"""Do the probes find what was planted, all of it and nothing else? Planted language models.

Every tally compares one probe with the closed form of `mech.planted.expect` or with the plan,
entry by entry; the probes see activations only.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mech.capture import capture_blocks
from mech.planted import expect
from mech.planted.build import Planted
from mech.planted.plan import BOS, RAISED, SEP, STOP, Plan
from mech.probes import dormant, massive, outliers, reach, secondary, sinks, specialised, spells
from mech.trace import BlockTrace

AUTHOR = 0.99
"""The MLP's share of what a block writes from which it is the author."""


class Tally(NamedTuple):
    """One kind of plant in one model: how many there are, how many of them a probe found, and
    how much it found that is none."""

    plant: str
    planted: int
    found: int
    false: int

    @property
    def whole(self) -> bool:
        """Everything was found and nothing else."""
        return self.found == self.planted and self.false == 0


def compare(plant: str, truth: Bool[np.ndarray, "*axes"], seen: Bool[np.ndarray, "*axes"]) -> Tally:
    """The tally of two sets, given as masks."""
    return Tally(plant, int(truth.sum()), int((truth & seen).sum()), int((seen & ~truth).sum()))


def look(made: Planted) -> list[BlockTrace]:
    """One pass, whole: planted models are small."""
    return capture_blocks(made.model, made.tokens, lambda block: block)


def recover(made: Planted, blocks: list[BlockTrace]) -> list[Tally]:
    """Every probe of sinks, massive activations, outliers and heads, against the plan."""
    tokens = made.tokens.numpy()
    return [
        *_sinks(made.plan, tokens, blocks),
        *_secondary(made.plan, tokens, blocks),
        *_massive(made.plan, tokens, blocks),
        *_outliers(made.plan, tokens, blocks),
        *_heads(made.plan, tokens, blocks),
    ]


def counted(blocks: list[BlockTrace]) -> Bool[np.ndarray, "batch key"]:
    """The keys at which a sink is counted: the first, and later ones that the guard leaves."""
    block = blocks[0]
    null = reach.null_received(block.heads.low, block.heads.high, block.real)
    return reach.countable(block.reach, null)


def alphas(blocks: list[BlockTrace]) -> Float[np.ndarray, "layer batch head key"]:
    """Equation 1 of every block."""
    return np.stack([sinks.score(block.received, block.reach) for block in blocks])


def _sinks(plan: Plan, tokens: np.ndarray, blocks: list[BlockTrace]) -> list[Tally]:
    truth = expect.sinks(plan, tokens)
    seen = sinks.sinks(alphas(blocks))
    where = counted(blocks)[:, None]
    special = [tokens == BOS, np.isin(tokens, [SEP, STOP]), tokens == RAISED]
    kinds = ["primary sink", "later sinks", "secondary sinks as sinks"]
    tallies = [
        compare(kind, (truth & which[:, None] & where), (seen & which[:, None] & where))
        for kind, which in zip(kinds, special, strict=True)
    ]
    ordinary = ~np.isin(tokens, [BOS, SEP, STOP, RAISED])[:, None] & where
    return [*tallies, compare("sinks at other tokens", truth & ordinary, seen & ordinary)]


def _secondary(plan: Plan, tokens: np.ndarray, blocks: list[BlockTrace]) -> list[Tally]:
    """Creation, lifetime and class of every secondary sink, and the MLP as its author."""
    norm, cosine = along_first(blocks)
    wanted = (plan.raised, plan.erased - plan.raised, secondary.KINDS.index("secondary"), True)
    planted = int((tokens == RAISED).sum()) if plan.massive else 0
    right, false, spans, authored = np.zeros(4, int)
    for row, ids in enumerate(tokens):
        where = longest(norm[:, row])
        spans += where == (plan.created, plan.end) if plan.massive else where.layers == 0
        found = secondary.secondary(cosine[:, row], where, np.arange(len(ids)) > 0)
        levels = zip(found.creation, found.lifetime, found.kind, found.contiguous, strict=True)
        right_level = np.array([level == wanted for level in levels], bool)
        good = (ids[found.token] == RAISED) & right_level
        right += good.sum()
        false += (~good).sum()
        attn, mlp = (_along(blocks, row, half) for half in ("attn_write", "mlp_write"))
        authored += (secondary.written_by_mlp(attn, mlp, found)[good] > AUTHOR).sum()
    return [
        Tally("secondary sinks: level and class", planted, int(right), int(false)),
        Tally("secondary sinks: the MLP wrote them", planted, int(authored), 0),
        Tally("span of the primary sink", len(tokens), int(spans), len(tokens) - int(spans)),
    ]


def along_first(
    blocks: list[BlockTrace],
) -> tuple[Float[np.ndarray, "layer batch seq"], Float[np.ndarray, "layer batch seq"]]:
    """Norms after every block, and cosines to the first token's state."""
    states = np.stack([block.resid_post for block in blocks])
    norm = np.linalg.norm(states, axis=-1)
    return norm, np.einsum("lbtd,lbd->lbt", states, states[:, :, 0]) / (norm * norm[..., :1])


def longest(norm: Float[np.ndarray, "layer seq"]) -> secondary.Span:
    """The longest phase of a raised first token: empty where it is never raised.

    The paper's own span always exists, and leaves the embedding out, so that it cannot begin in
    block 0.
    """
    ratio = norm[:, 0] / np.median(norm[:, 1:], axis=1)
    found = secondary.phases(ratio)
    return max(found, key=lambda span: span.layers, default=secondary.Span(len(norm), len(norm)))


def _along(blocks: list[BlockTrace], row: int, half: str) -> Float[np.ndarray, "layer seq"]:
    """A half of each block's write along the primary sink's direction after the block."""
    found = []
    for block in blocks:
        way = block.resid_post[row, 0] / np.linalg.norm(block.resid_post[row, 0])
        found.append(getattr(block, half)[row] @ way)
    return np.stack(found)


def _massive(plan: Plan, tokens: np.ndarray, blocks: list[BlockTrace]) -> list[Tally]:
    """Every massive entry with the block that wrote it, the block that erased it, and the MLP."""
    taken, before = [], massive.is_massive(blocks[0].resid_pre[None])[0]
    for block in blocks:
        after = massive.is_massive(block.resid_post[None])[0]
        writes = block.attn_write, block.mlp_write
        taken.append(spells.steps(before, after, block.resid_pre, block.resid_post, *writes))
        before = after
    found = {
        (s.batch, s.token, s.dim, s.writer, s.birth, s.death, *_by_mlp(s))
        for s in spells.spells(taken)
    }
    lives = [(BOS, plan.primary, plan.created), (SEP, plan.separators[:1], plan.separated),
             (STOP, plan.separators[1:], plan.separated)]  # fmt: skip
    truth = {
        (int(b), int(t), dim, born, born, plan.end, True, True)
        for token, dims, born in lives
        for b, t in np.argwhere(tokens == token)
        for dim in dims
        if plan.massive
    }
    both = len(truth & found)
    return [Tally("massive activations: author and end", len(truth), both, len(found) - both)]


def _by_mlp(spell: spells.Spell) -> tuple[bool, bool]:
    return spell.by_mlp > AUTHOR, spell.erased_by_mlp > AUTHOR


def _outliers(plan: Plan, tokens: np.ndarray, blocks: list[BlockTrace]) -> list[Tally]:
    states = np.stack([blocks[0].resid_pre, *[block.resid_post for block in blocks]])
    ordinary = ~np.asarray(massive.is_massive(states).any(axis=-1))
    axis = np.arange(states.shape[-1]) == plan.outlier
    relative = outliers.outlier_dims(states, ordinary)
    normed = states[:-1] / np.sqrt((states[:-1] ** 2).mean(axis=-1, keepdims=True))
    return [
        compare("outlier feature: 6 medians", np.broadcast_to(axis, relative.shape), relative),
        compare("outlier feature: int8 rule", axis, outliers.int8_outlier_dims(normed)),
    ]


def _heads(plan: Plan, tokens: np.ndarray, blocks: list[BlockTrace]) -> list[Tally]:
    roles = np.array(plan.roles)
    real = blocks[0].real
    quiet = np.stack([dormant.quiet(dormant.output_ratio(block.z, real)) for block in blocks], 1)
    first = np.arange(tokens.shape[1]) == np.zeros((len(tokens), 1))
    mass = np.stack([dormant.mass_on(block.received, first, real) for block in blocks], 1)
    exact = np.moveaxis(expect.score(plan, tokens)[..., 0], 0, 1)
    # Of heads that rest on the first token and of those whose limit is not at hand: 0.9 itself.
    rests = dormant.resting(exact)
    kept = specialised.kept(sinks.sinks(mass)).share >= specialised.LEAST
    keeps = np.isin(roles, ["park", "dormant", "catch"])
    asleep = np.broadcast_to(roles == "dormant", quiet.shape)
    return [
        compare("dormant heads: by output", asleep, quiet),
        compare("heads at rest: by attention", rests, dormant.resting(mass)),
        compare("sink-specialised heads", keeps, kept),
    ]
