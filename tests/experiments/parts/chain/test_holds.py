"""Mediators that are held: nothing changes where nothing was broken, and exactly what is said."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from experiments.parts.chain.holds import (
    Changes,
    HoldSinks,
    HoldTags,
    erased,
    held_along,
    put,
    streaming,
)
from experiments.parts.chain.links import _doubled, _zeroed
from experiments.parts.chain.one_pass import Dense, Look, Writing, changed_pass, dense_pass
from experiments.parts.chain.units import directions
from experiments.settings import BadOption
from mech.attention import pattern_rows
from mech.capture import capture_blocks
from mech.causal import intervene
from mech.edits import Block
from mech.reach import Where

SINKS, RANDOM, LAYERS = ((0, 5), (0, 3, 7)), ((2, 9), (4, 8, 11)), (0, 1, 2)
PLACES, BLOCKS = ((1, 2),), (1,)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=31,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.4,
    )
    return LlamaForCausalLM(config).double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def ids():
    return torch.from_numpy(np.random.default_rng(1).integers(0, 31, (2, 19)))


@pytest.fixture(scope="module")
def dense(model, ids):
    return dense_pass(model, ids, SINKS, RANDOM, Look(PLACES, BLOCKS))


def other(model, seed=3):
    """The same model with other W_K."""
    torch.manual_seed(seed)
    changed = LlamaForCausalLM(model.config).double().eval().requires_grad_(False)
    changed.load_state_dict(model.state_dict())
    for name, parameter in changed.named_parameters():
        if "k_proj" in name:
            parameter.normal_(0, 0.4)
    return changed


def holds(kept):
    where = Where(LAYERS, SINKS)
    return {"sinks": HoldSinks(where, kept.sinks.weight), "tags": HoldTags(where, kept.sinks.tag)}


def close(a, b, slack=2e-5):
    assert float((a - b).abs().max()) < slack * float(b.abs().max())


@pytest.mark.parametrize("which", ["sinks", "tags"])
def test_holding_what_is_there_changes_nothing(model, ids, dense, which):
    passed, kept = dense
    after = changed_pass(model, ids, Changes((holds(kept)[which],)), Look(PLACES, BLOCKS), kept)
    close(after.logits, passed.logits)
    np.testing.assert_allclose(after.z[1, 2], passed.z[1, 2], atol=1e-5)
    np.testing.assert_allclose(after.streams[1], passed.streams[1], atol=1e-4)


def test_held_sinks_have_the_dense_share_and_others_share_the_rest(model, ids, dense):
    """z of the first layer, whose input is the same, from patterns written out entry by entry."""
    changed = other(model)
    kept = dense[1]
    blocks = {}
    for name, each in (("dense", model), ("changed", changed)):
        blocks[name] = capture_blocks(each, ids, lambda block: block)[0]
    with intervene(changed, holds(kept)["sinks"]) as held:
        z = capture_blocks(held, ids, lambda block: block.z)[0]
    every = np.arange(ids.shape[1])
    then, now = (pattern_rows(blocks[name].heads, every) for name in ("dense", "changed"))
    for row, sinks in enumerate(SINKS):
        for head, query in np.ndindex(4, ids.shape[1]):
            weights = now[row, head, query].astype(float).copy()
            named = [s for s in sinks if s < query]
            rest = [k for k in range(query + 1) if k not in named]
            taken = then[row, head, query, named].sum()
            weights[rest] *= (1 - taken) / weights[rest].sum()
            weights[named] = then[row, head, query, named]
            wanted = weights @ blocks["changed"].heads.value[row, head // 2]
            assert weights.sum() == pytest.approx(1)
            np.testing.assert_allclose(z[row, head, query], wanted, atol=1e-9)


def test_held_tags_are_the_dense_ones_also_behind_a_block(model, ids, dense):
    kept = dense[1]
    where = Where((0,), SINKS)
    with intervene(model, Block(where)) as blocked:
        without = capture_blocks(blocked, ids, lambda block: block.z)[0]
    with intervene(model, Block(where), HoldTags(where, kept.sinks.tag, absent=None)) as held:
        z = capture_blocks(held, ids, lambda block: block.z)[0]
    np.testing.assert_allclose(z - without, kept.sinks.tag[0].numpy(), atol=1e-5)
    one = Where((0,), SINKS, (1,))
    with intervene(model, Block(one), HoldTags(where, kept.sinks.tag, absent=(1,))) as held:
        z = capture_blocks(held, ids, lambda block: block.z)[0]
    plain = capture_blocks(model, ids, lambda block: block.z)[0]
    np.testing.assert_allclose(z[:, [0, 2, 3]], plain[:, [0, 2, 3]], atol=1e-5)
    wanted = without[:, 1] + kept.sinks.tag[0][:, 1].numpy()
    np.testing.assert_allclose(z[:, 1], wanted, atol=1e-5)


def test_a_changed_stream_is_what_later_blocks_read(model, ids):
    with streaming(model, {1: (lambda h: 0 * h,)}):
        left = capture_blocks(model, ids, lambda block: (block.resid_pre, block.resid_post))
    assert np.abs(left[2][0]).max() == 0
    plain = capture_blocks(model, ids, lambda block: block.resid_pre)
    np.testing.assert_array_equal(left[1][0], plain[1])


def test_stream_changes_do_what_they_say():
    generator = torch.Generator().manual_seed(0)
    h, before = (torch.randn(2, 5, 7, generator=generator).double() for _ in range(2))
    basis = torch.linalg.qr(torch.randn(7, 2, generator=generator).double()).Q.mT
    mean = h.mean(dim=(0, 1))
    at = torch.ones(2, 5, dtype=torch.bool)
    at[1, 3] = False
    gone = erased(basis, mean, at)(h)
    assert torch.equal(gone[1, 3], h[1, 3])
    close((gone @ basis.mT)[at], (mean @ basis.mT).expand(9, 2))
    other = torch.linalg.qr(basis.mT, mode="complete").Q[:, 2:].mT
    close(gone @ other.mT, h @ other.mT)
    held = held_along(basis, before @ basis.mT)(h)
    close(held @ basis.mT, before @ basis.mT)
    close(held @ other.mT, h @ other.mT)
    mask = h > 0
    assert torch.equal(put(mask, before)(h), torch.where(mask, before, h))


def test_the_control_of_outliers_is_as_large_and_leaves_them():
    value = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(2)).double()
    mask = torch.zeros(2, 6, 9, dtype=torch.bool)
    mask[:, 0, 4] = mask[1, 3, 7] = True
    value[mask] = 1e6
    empty = Writing({}, {})
    kept = Dense(empty, empty, {0: mask}, {0: value})
    zeroed, doubled = (make(kept, 0, 1)(value) for make in (_zeroed, _doubled))
    assert torch.equal(zeroed[mask], torch.zeros(3).double())
    assert torch.equal(zeroed[~mask], value[~mask])
    assert torch.equal(doubled[mask], value[mask])
    sizes = [(each - value).norm() for each in (zeroed, doubled)]
    close(sizes[1], sizes[0], 1e-3)


@given(seed=st.integers(0, 99), groups=st.integers(2, 4))
def test_erased_directions_leave_groups_with_one_mean(seed, groups):
    """Then no line tells them apart; the random direction of equal variance leaves them."""
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.arange(120) % groups)
    vectors = draw.standard_normal((120, 11)) + 3 * draw.standard_normal((groups, 11))[labels]
    basis, control, mean = directions(vectors, labels, seed)
    np.testing.assert_allclose(basis @ basis.T, np.eye(groups - 1), atol=1e-9)
    np.testing.assert_allclose(basis @ control.T, 0, atol=1e-9)

    def apart(rows):
        left = vectors - (vectors - mean) @ rows.T @ rows
        return np.ptp([left[labels == g].mean(axis=0) for g in range(groups)], axis=0).max()

    assert apart(basis) < 1e-9
    assert apart(control) > 0.1


def test_one_group_has_no_direction():
    with pytest.raises(BadOption, match="one sink"):
        directions(np.ones((5, 3)), np.zeros(5, int))
