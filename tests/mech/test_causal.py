"""Interventions on running models: exact where linear algebra predicts them, gone afterwards."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from bridge.evaluate import token_losses
from mech import standing
from mech.attention import pattern_columns
from mech.capture import capture, capture_blocks
from mech.causal import elsewhere, intervene
from mech.edits import Block, Mean, Project, RandomDirection, Remove, Scale, Swap
from mech.errors import BadInput
from mech.heads import head_weights
from mech.reach import Seen, Where
from toy.transformer import forward, theorem_weights

SINKS = ((3, 6), (5,))


def logits(model, tokens):
    with torch.no_grad():
        return model(tokens, use_cache=False).logits


def everywhere(model, sinks=SINKS):
    return Where(tuple(range(model.config.num_hidden_layers)), sinks)


def test_edits_of_nothing_leave_the_logits_of_every_family(tiny, tokens):
    model = tiny.model
    plain = logits(model, tokens)
    where = everywhere(model)
    with intervene(model, Scale(where, 1.0), Swap(where, SINKS)) as changed:
        same = logits(changed, tokens)
    assert float((same - plain).abs().max()) < 1e-5 * float(plain.abs().max())


def test_an_edit_of_one_model_leaves_another_of_the_same_configuration(llama, tokens):
    """Both go through the one function that stands in; only the edited one's modules are meant."""
    other = type(llama)(llama.config).eval()
    plain = logits(other, tokens)
    assert other.config is llama.config
    with intervene(llama, Remove(everywhere(llama))):
        same = logits(other, tokens)
    # As far as one attention kernel is from another.
    assert float((same - plain).abs().max()) < 1e-5 * float(plain.abs().max())


def test_an_edit_changes_what_follows_it_and_nothing_before(tiny, tokens):
    plain = capture(tiny.model, tokens)
    for kind in (Remove, Mean, Project, RandomDirection, Block):
        with intervene(tiny.model, kind(Where((1,), SINKS))) as changed:
            edited = capture(changed, tokens)
        np.testing.assert_array_equal(edited.resid[:2], plain.resid[:2])
        np.testing.assert_array_equal(edited.pattern[1], plain.pattern[1])
        for row, first in enumerate((3, 5)):
            # A sink is read by later tokens only, so those before it are as they were.
            before = np.s_[1:, row, :, : first + 1]
            np.testing.assert_array_equal(edited.z[before], plain.z[before])
            after = np.s_[2, row, first + 1 :]
            assert np.abs(edited.resid[after] - plain.resid[after]).max() > 0.01
        # Later attention is that of the edited model.
        assert np.abs(edited.pattern[2] - plain.pattern[2]).max() > 1e-3


def test_removal_takes_a_v_w_o_out_of_what_a_block_writes(tiny, tokens):
    """Σ_s A[q, s] v_s W_O of every sink and query, from arrays and for every family."""
    layer = 1
    chosen = (0, 3)
    where = Where((layer,), SINKS, chosen)
    plain = capture_blocks(tiny.model, tokens, lambda block: block)[layer]
    with intervene(tiny.model, Remove(where)) as changed:
        edited = capture_blocks(changed, tokens, lambda block: block)[layer]
    W_O = head_weights(tiny.model, layer).W_O
    heads = plain.heads
    wanted = np.zeros_like(plain.z)
    for row, sinks in enumerate(SINKS):
        columns = pattern_columns(heads, np.array(sinks))[row]
        for place, s in enumerate(sinks):
            columns[:, s, place] = 0
            for head in chosen:
                kv = head * heads.value.shape[1] // plain.z.shape[1]
                wanted[row, head] -= np.outer(columns[head, :, place], heads.value[row, kv, s])
    np.testing.assert_allclose(edited.z - plain.z, wanted, atol=2e-5 * np.abs(plain.z).max())
    if plain.attn_write is not None and tiny.family not in ("gemma2", "gemma3", "olmo2"):
        # (Those normalise after W_O: there the write is not linear in z.)
        written = np.einsum("bhqd,hdm->bqm", wanted, W_O)
        scale = np.abs(plain.attn_write).max()
        np.testing.assert_allclose(edited.attn_write - plain.attn_write, written, atol=1e-4 * scale)


def test_blocking_a_key_everywhere_is_the_models_own_mask(tiny, tokens):
    """Positive control: transformers masks token 0 by itself, and says the same."""
    model = tiny.model
    model.set_attn_implementation("eager")
    mask = torch.ones_like(tokens)
    mask[:, 0] = 0
    places = torch.arange(tokens.shape[1])[None].expand_as(tokens)
    with torch.no_grad():
        masked = model(tokens, attention_mask=mask, position_ids=places, use_cache=False).logits
    with intervene(model, Block(everywhere(model, ((0,),)))) as changed:
        blocked = logits(changed, tokens)
    scale = float(masked[:, 1:].abs().max())
    assert float((blocked - masked)[:, 1:].abs().max()) < 1e-4 * scale
    assert float((blocked - logits(model, tokens))[:, 1:].abs().max()) > 1e-2 * scale


def test_a_hand_made_model_loses_exactly_the_tag_it_reads_out(llama, tokens):
    """With the MLP of the last block silent, logits are the normed stream less A v W_O."""
    last = llama.model.layers[-1]
    torch.nn.init.zeros_(last.mlp.down_proj.weight)
    layer = len(llama.model.layers) - 1
    where = Where((layer,), SINKS)
    plain = capture_blocks(llama, tokens, lambda block: block)[layer]
    change = np.zeros_like(plain.z)
    for row, sinks in enumerate(SINKS):
        columns = pattern_columns(plain.heads, np.array(sinks))[row]
        for place, s in enumerate(sinks):
            columns[:, s, place] = 0
            v = plain.heads.value[row, :, s].repeat(3, axis=0)
            change[row] -= columns[:, :, place, None] * v[:, None]
    write = np.einsum("bhqd,hdm->bqm", change, head_weights(llama, layer).W_O)
    with torch.no_grad():
        stream = torch.from_numpy(plain.resid_post + write)
        predicted = llama.lm_head(llama.model.norm(stream))
    with intervene(llama, Remove(where)) as changed:
        found = logits(changed, tokens)
    scale = float(predicted.abs().max())
    assert float((found - predicted).abs().max()) < 1e-5 * scale
    assert float((found - logits(llama, tokens)).abs().max()) > 1e-2 * scale


def test_nested_interventions_compose_in_order(llama, tokens):
    a, b = Where((0,), SINKS, (1, 2)), Where((0, 2), ((2,), (2,)), (2, 4))
    with intervene(llama, Scale(a, 3.0), Project(b)) as changed:
        together = logits(changed, tokens)
    with intervene(llama, Scale(a, 3.0)) as outer, intervene(outer, Project(b)) as inner:
        nested = logits(inner, tokens)
    with intervene(llama, Project(b)) as outer, intervene(outer, Scale(a, 3.0)) as inner:
        reversed_ = logits(inner, tokens)
    assert torch.equal(together, nested)
    assert float((nested - reversed_).abs().max()) > 1e-4


def test_halves_of_a_tag_make_a_whole(llama, tokens):
    one, two = Where((1,), ((3,), ())), Where((1,), ((6,), (5,)))
    with intervene(llama, Remove(one), Remove(two)) as changed:
        apart = logits(changed, tokens)
    with intervene(llama, Remove(Where((1,), SINKS))) as changed:
        np.testing.assert_allclose(apart, logits(changed, tokens), atol=1e-5)


def test_the_model_is_as_before_also_after_an_error(llama, tokens):
    plain, own = logits(llama, tokens), llama.config._attn_implementation
    weights = {name: weight.clone() for name, weight in llama.state_dict().items()}
    with intervene(llama, Remove(everywhere(llama))):
        assert not torch.equal(logits(llama, tokens), plain)
    with pytest.raises(BadInput, match="token 77"), intervene(llama, Remove(Where((0,), ((77,),)))):
        logits(llama, tokens)
    with pytest.raises(ZeroDivisionError), intervene(llama, Remove(everywhere(llama))):
        raise ZeroDivisionError
    with (
        pytest.raises(BadInput, match="run from 0 to 2"),
        intervene(llama, Remove(Where((3,), ((1,),)))),
    ):
        pass
    assert llama.config._attn_implementation == own
    assert standing._held == {}
    assert all(torch.equal(weights[name], weight) for name, weight in llama.state_dict().items())
    assert torch.equal(logits(llama, tokens), plain)


def test_losses_are_those_of_the_edited_model(llama, tokens):
    ids = tokens.flatten()
    where = everywhere(llama, ((0,),))

    def losses(model):
        return token_losses(model, ids, context=9, stride=8, prefix=1).nll

    plain = losses(llama)
    with intervene(llama, Scale(where, 1.0)) as changed:
        np.testing.assert_allclose(losses(changed), plain, atol=1e-4)
    with intervene(llama, Block(where)) as changed:
        assert float((losses(changed) - plain).abs().max()) > 0.01


def test_another_model_is_not_edited(llama, tokens):
    other = deepcopy(llama)
    plain = logits(other, tokens)
    with intervene(llama, Remove(everywhere(llama))):
        assert torch.equal(logits(other, tokens), plain)


def test_the_control_has_as_many_tokens_and_none_of_the_sinks():
    sinks = ((2, 5, 9), (), (3,))
    drawn = elsewhere(sinks, 12, avoid=((1,), (1,), (1,)), seed=3)
    assert [len(row) for row in drawn] == [3, 0, 1]
    assert all(not {*row} & {*own, 0, 1} for row, own in zip(drawn, sinks, strict=True))
    assert drawn == elsewhere(sinks, 12, avoid=((1,), (1,), (1,)), seed=3)
    assert len({elsewhere(sinks, 12, seed=seed) for seed in range(20)}) > 10
    with pytest.raises(BadInput, match="3 other tokens are asked of the 2"):
        elsewhere(((2, 5, 4),), 6)


@pytest.mark.parametrize("t", [9, 23])
def test_without_its_tag_the_theorems_average_is_gone(t):
    """Removed, tokens after [SEP] keep their own -1 and others 0: weights e and 1, not 1 and 0."""
    s_tag, seq = 40.0, 41
    x = np.random.default_rng(t).uniform(-1, 1, (3, seq))
    f, trace = forward(theorem_weights(s_tag), x, t)
    stream, z = trace.resid[0], trace.z[0]
    assert f == pytest.approx(x[:, t:].mean(axis=1), abs=1e-9)

    e = torch.from_numpy(np.array(stream))[:, None]
    value = e @ torch.tensor([[0.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    at = torch.arange(seq)[None]
    lse = (e @ e.mT).masked_fill(~torch.ones(seq, seq).tril().bool(), -torch.inf).logsumexp(-1)
    seen = Seen(
        0, e, e, value, lse, torch.zeros_like(at), at, 1.0, None, lambda: torch.eye(2)[None]
    )
    removed = Remove(Where((0,), ((t - 1,),)))(torch.from_numpy(np.array(z)), seen)
    changed = stream + removed[:, 0].numpy()

    weight = np.exp(changed[:, -1:, 1] * changed[:, :, 1])
    found = (weight * changed[:, :, 0]).sum(axis=1) / weight.sum(axis=1)
    after = np.arange(seq) >= t
    kept = np.where(after, np.e, 1.0)
    numbers = np.where(np.arange(seq) == t - 1, 0.0, x)
    predicted = (kept * numbers).sum(axis=1) / kept.sum()
    np.testing.assert_allclose(found, predicted, atol=1e-9)
    assert np.abs(found - f).max() > 0.01
