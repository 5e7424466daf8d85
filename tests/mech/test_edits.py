"""Edits of tags on one attention call whose whole pattern is at hand: linear algebra, exactly."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mech.edits import Block, Mean, Project, RandomDirection, Remove, Scale, Swap, Transplant
from mech.errors import BadInput
from mech.reach import Seen, Where

BATCH, HEADS, KV, SEQ, D_KEY, D_HEAD, D_MODEL = 2, 6, 3, 11, 5, 7, 13
SINKS = ((2, 5), (4,))
CHOSEN = (1, 4)


class World:
    """A call with a window, left padding and a soft cap, and its T × T pattern in float64."""

    def __init__(self, learned: bool):
        generator = torch.Generator().manual_seed(0)

        def draw(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        self.query, self.key = draw(BATCH, HEADS, SEQ, D_KEY), draw(BATCH, KV, SEQ, D_KEY)
        self.value, self.W_O = draw(BATCH, KV, SEQ, D_HEAD), draw(HEADS, D_HEAD, D_MODEL)
        self.sink = draw(HEADS) if learned else None
        at = torch.arange(SEQ)
        low = torch.stack([(at - 7).clamp(min=0), (at - 7).clamp(min=2)])
        high = at.expand(BATCH, SEQ).clone()
        high[1, :2] = -1  # padding queries see nothing
        self.sees = ((low[..., None] <= at) & (at <= high[..., None]))[:, None]
        logits = self.query @ self.key.repeat_interleave(2, 1).mT * 0.9
        self.logits = 2 * torch.tanh(logits / 2)
        self.pattern, lse = self.softmax(self.sees)
        self.v = self.value.repeat_interleave(2, 1)
        self.z = self.pattern @ self.v
        gram = self.W_O @ self.W_O.mT
        self.seen = Seen(
            3, self.query, self.key, self.value, lse, low, high, 0.9, 2.0, lambda: gram, self.sink
        )

    def softmax(self, sees):
        logits = self.logits.masked_fill(~sees, float("-inf"))
        if self.sink is not None:
            column = self.sink[None, :, None, None].expand(*logits.shape[:3], 1)
            logits = torch.cat([logits, column], -1)
        lse = torch.where(sees.any(-1), logits.logsumexp(-1), float("-inf"))
        pattern = torch.where(sees, (logits[..., :SEQ] - lse[..., None]).exp(), 0.0)
        return pattern, lse

    def tags(self, sinks):
        """A with nothing but the sinks' columns, own queries left out."""
        only = torch.zeros_like(self.pattern)
        for row, tokens in enumerate(sinks):
            for s in tokens:
                only[row, :, :, s] = self.pattern[row, :, :, s]
                only[row, :, s, s] = 0
        return only


@pytest.fixture(params=[False, True], ids=["plain", "learned sink"])
def world(request):
    return World(request.param)


def where(heads=CHOSEN):
    return Where((3,), SINKS, heads)


def at_heads(change):
    """`change` at the chosen heads, nothing at others."""
    only = torch.zeros_like(change)
    only[:, list(CHOSEN)] = change[:, list(CHOSEN)]
    return only


def near(found, wanted):
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), atol=1e-12)


def test_the_world_has_what_could_go_wrong(world):
    assert (world.tags(SINKS)[0] > 0.05).any()
    assert not world.sees[0, 0, 10, 2]  # a sink that is out of the window


@pytest.mark.parametrize("c", [0.0, 0.5, 1.0, 2.0])
def test_scale_is_linear_in_the_tags(world, c):
    change = at_heads((c - 1) * world.tags(SINKS) @ world.v)
    near(Scale(where(), c)(world.z, world.seen), world.z + change)


def test_remove_drops_what_the_sinks_wrote_and_keeps_the_attention(world):
    rest = at_heads(-world.tags(SINKS) @ world.v)
    near(Remove(where())(world.z, world.seen), world.z + rest)
    everywhere = world.z - world.tags(SINKS) @ world.v
    near(Remove(where(None))(world.z, world.seen), everywhere)


def test_mean_is_the_same_for_every_query_that_sees_the_sink(world):
    tags, change = world.tags(SINKS), torch.zeros_like(world.z)
    for row, tokens in enumerate(SINKS):
        for s in tokens:
            seers = [q for q in range(SEQ) if world.sees[row, 0, q, s] and q != s]
            mean = tags[row, :, seers, s].mean(1)
            for q in seers:
                change[row, :, q] += (mean - tags[row, :, q, s])[:, None] * world.v[row, :, s]
    near(Mean(where())(world.z, world.seen), world.z + at_heads(change))


def test_project_leaves_nothing_along_the_tag_in_the_stream(world):
    changed = Project(where())(world.z, world.seen)
    written = torch.einsum("bhqd,hdm->bhqm", changed, world.W_O)
    tag = torch.einsum("bhqd,hdm->bhqm", world.tags(SINKS) @ world.v, world.W_O)
    along = (written * tag).sum(-1)[:, list(CHOSEN)]
    assert float(along.abs().max()) < 1e-9
    # What was orthogonal stays: the change is along the tag itself.
    moved = torch.einsum("bhqd,hdm->bhqm", changed - world.z, world.W_O)
    cosine = (moved * tag).sum(-1).abs() - moved.norm(dim=-1) * tag.norm(dim=-1)
    assert float(cosine.abs().max()) < 1e-9
    assert float((changed - world.z).abs().max()) > 0.1
    near(changed, world.z + at_heads(changed - world.z))


@pytest.mark.parametrize("added", [False, True])
def test_a_random_direction_has_the_norm_of_the_tag_in_the_stream(world, added):
    """Of the sum of all sinks' tags, at every token, though they are not orthogonal."""
    single = Where((3,), SINKS, CHOSEN)
    changed = RandomDirection(single, 5, added)(world.z, world.seen)
    tag = world.tags(single.sinks) @ world.v
    written = changed - world.z + (0 if added else at_heads(tag))
    norms = [torch.einsum("bhqd,hdm->bhqm", x, world.W_O).norm(dim=-1) for x in (written, tag)]
    near(norms[0], at_heads(norms[1]))
    again = RandomDirection(single, 5, added)(world.z, world.seen)
    near(changed, again)
    assert (changed - RandomDirection(single, 6, added)(world.z, world.seen)).abs().max() > 0.01
    below = RandomDirection(single, 5, added)(world.z, world.seen._replace(layer=2))
    assert (changed - below).abs().max() > 0.01
    # Neither the other sequence of the batch nor the width of its list of sinks matters.
    alone = world.seen._replace(
        **{
            name: getattr(world.seen, name)[1:]
            for name in ("query", "key", "value", "lse", "low", "high")
        }
    )
    where_alone = Where((3,), SINKS[-1:], CHOSEN)
    near(RandomDirection(where_alone, 5, added)(world.z[1:], alone), changed[1:])
    # Nor do the other heads.
    all_heads = RandomDirection(Where((3,), SINKS), 5, added)(world.z, world.seen)
    near(all_heads[:, list(CHOSEN)], changed[:, list(CHOSEN)])


@pytest.mark.parametrize("sinks", [SINKS, ((2, 5, 0), (4,)), ((), (3, 4))])
def test_a_random_direction_has_nothing_of_any_tag_of_its_head(world, sinks):
    """A W_O of low rank makes two drawn vectors alike in the stream; not these."""
    world.W_O[:] = world.W_O @ torch.diag(10.0 ** -torch.arange(D_MODEL).double().clamp(max=4))
    gram = world.W_O @ world.W_O.mT
    seen = world.seen._replace(gram=lambda: gram)
    change = RandomDirection(Where((3,), sinks, CHOSEN), 1, added=True)(world.z, seen) - world.z
    written, tags = (torch.einsum("bhqd,hdm->bhqm", x, world.W_O) for x in (change, world.v))
    for row, tokens in enumerate(sinks):
        for head in CHOSEN:
            for s in tokens:
                if world.tags(sinks)[row, head, :, s].any():
                    cosine = torch.cosine_similarity(written[row, head], tags[row, head, s], dim=-1)
                    assert float(cosine.abs().max()) < 1e-8
        assert (written[row].abs().max() > 1e-3) == bool(tokens)


def test_tags_that_fill_all_that_a_head_can_write_leave_no_control(world):
    sinks = (tuple(range(3, 7)), ())  # 4 tags and 4 controls do not fit into 7 dimensions
    with pytest.raises(BadInput, match="no direction is left"):
        RandomDirection(Where((3,), sinks), 1)(world.z, world.seen)


def test_the_control_of_removal_takes_away_what_moving_the_tag_puts_in(world):
    moved, control = (
        RandomDirection(where(), 3, added)(world.z, world.seen) for added in (False, True)
    )
    near(moved + control, 2 * world.z - at_heads(world.tags(SINKS) @ world.v))


def test_swap_exchanges_two_tags(world):
    sinks, partners = ((2, 5), (4, 6)), ((3, 6), (7, 5))
    changed = Swap(Where((3,), sinks), partners)(world.z, world.seen)
    a, b = world.tags(sinks), world.tags(partners)
    v = world.v.clone()
    for row in range(BATCH):
        for s, p in zip(sinks[row], partners[row], strict=True):
            v[row, :, [s, p]] = world.v[row, :, [p, s]]
    near(changed, world.z + (a + b) @ (v - world.v))


def test_transplant_gives_the_mean_tag_to_the_tokens_named(world):
    to = ((0, 1, 8), (3,))
    changed = Transplant(where(), to)(world.z, world.seen)
    wanted = world.z.clone()
    for row, tokens in enumerate(SINKS):
        for s in tokens:
            seers = [q for q in range(SEQ) if world.sees[row, 0, q, s] and q != s]
            tags = world.tags(SINKS)[row, :, :, s]
            for q in to[row]:
                more = tags[:, seers].mean(1) - tags[:, q]
                wanted[row, :, q] += more[:, None] * world.v[row, :, s]
    near(changed, world.z + at_heads(wanted - world.z))
    assert (changed - world.z)[0, :, 0].abs().max() > 0.01


def test_a_random_transplant_is_as_long_as_the_tag_it_stands_for(world):
    single, to = Where((3,), ((5,), (4,)), CHOSEN), ((0, 3), (2, 3))
    own, random = (Transplant(single, to, seed)(world.z, world.seen) for seed in (None, 2))
    norms = [
        torch.einsum("bhqd,hdm->bhqm", x - world.z, world.W_O).norm(dim=-1) for x in (own, random)
    ]
    near(*norms)
    assert (own - random).abs().max() > 0.01


@pytest.mark.parametrize("block", [1, 2**23], ids=["row by row", "at once"])
def test_block_is_the_softmax_without_those_keys(world, block, monkeypatch):
    monkeypatch.setattr("mech.reach.BLOCK", block)
    sees = world.sees.expand(-1, HEADS, -1, -1).clone()
    for row, tokens in enumerate(SINKS):
        for s in tokens:
            sees[row, :, torch.arange(SEQ) != s, s] = False
    blocked = world.softmax(sees)[0] @ world.v
    changed = Block(where())(world.z, world.seen)
    near(changed, world.z + at_heads(blocked - world.z))
    assert (changed - world.z).abs().max() > 0.1


@pytest.mark.parametrize(
    "edit",
    [
        Scale(where(), 1.0),
        Swap(where(), SINKS),
        *(kind(Where((3,), ((),))) for kind in (Remove, Mean, Project, Block, RandomDirection)),
        Transplant(Where((3,), ((1,),)), ((),)),
    ],
)
def test_an_edit_of_nothing_is_the_identity(world, edit):
    assert torch.equal(edit(world.z, world.seen), world.z)


@pytest.mark.parametrize("kind", [Remove, Mean, Project, Block, RandomDirection])
def test_an_edit_does_not_write_into_what_it_is_given(world, kind):
    before = world.z.clone()
    kind(where())(world.z, world.seen)
    assert torch.equal(before, world.z)


def test_half_precision_calls_are_edited_in_the_precision_of_the_softmax(world):
    half = {name: getattr(world.seen, name).bfloat16() for name in ("query", "key", "value")}
    seen = world.seen._replace(**half)
    z = world.z.to(torch.bfloat16)
    changed = Remove(where())(z, seen)
    assert changed.dtype == torch.bfloat16
    assert (changed - Remove(where())(world.z, world.seen)).abs().max() < 0.2


def test_what_does_not_fit_is_refused(world):
    with pytest.raises(BadInput, match="3 sequences, but the batch has 2"):
        Remove(Where((3,), ((1,), (2,), (3,))))(world.z, world.seen)
    with pytest.raises(BadInput, match="token 11 is named, but a sequence has 11"):
        Remove(Where((3,), ((11,),)))(world.z, world.seen)
    with pytest.raises(BadInput, match="run from 0 to 5"):
        Remove(Where((3,), ((1,),), (6,)))(world.z, world.seen)
    with pytest.raises(BadInput, match="twice"):
        Where((3,), ((1, 1),))
    with pytest.raises(BadInput, match="negative"):
        Where((3,), ((-1,),))
    with pytest.raises(BadInput, match="partners"):
        Swap(where(), ((1,), (2,)))
    with pytest.raises(BadInput, match="negative"):
        replace(where(), sinks=())
