"""Edits that undo themselves."""

from typing import Any

import pytest
import torch
from torch import nn

from bridge.compress import compress
from bridge.methods.oats import OATS
from bridge.methods.wanda import Wanda
from bridge.operators import Dense, LowRank, Sparse
from bridge.sites import linears, module, operators
from bridge.toggle import swap, without
from mech.errors import BadInput


@pytest.fixture
def oats(llama, batches):
    compress(llama, OATS(), batches)
    return llama


def at(model, name: str) -> Any:
    return module(model, name)


def logits(model, batches):
    with torch.no_grad():
        return model(batches[0]).logits


def test_off_then_on_restores_every_logit(oats, batches):
    before = logits(oats, batches)
    for kind in (LowRank, Sparse):
        with without(oats, kind) as count:
            assert count == 21
            assert not torch.equal(logits(oats, batches), before)
        assert torch.equal(logits(oats, batches), before)


def test_without_the_low_rank_terms_the_sparse_ones_stand_alone(oats, batches):
    replacements = {
        name: next(term for term in op.modules() if type(term) is Sparse)
        for name, op in operators(oats).items()
    }
    with without(oats, LowRank):
        expected = logits(oats, batches)
        assert not any(term.active for term in oats.modules() if type(term) is LowRank)
        dense = at(oats, "layers.1.mlp.up_proj").dense()
        assert torch.equal(dense, replacements["layers.1.mlp.up_proj"].weight)
    assert not torch.equal(expected, logits(oats, batches))


def test_with_both_off_the_bias_is_left(oats, generator):
    operator = at(oats, "layers.0.self_attn.q_proj")
    with without(oats, LowRank), without(oats, Sparse):
        x = torch.randn(2, 3, 36, generator=generator)
        assert torch.equal(operator(x), operator.bias.expand(2, 3, 36))


def test_a_selection_and_nesting(oats):
    active = lambda: [term.active for term in oats.modules() if type(term) is LowRank]  # noqa: E731
    with without(oats, LowRank, select="*.q_proj") as queries:
        assert queries == 3
        with without(oats, LowRank) as everything:
            assert everything == 21
            assert not any(active())
        assert active().count(False) == 3
    assert all(active())


def test_it_is_on_again_after_an_exception(oats):
    with pytest.raises(KeyError), without(oats, Sparse):
        raise KeyError
    assert all(term.active for term in oats.modules() if type(term) is Sparse)


def test_nothing_to_switch_off_is_an_error(oats, families):
    with (
        pytest.raises(BadInput, match=r"layers\.0\.self_attn\.q_proj"),
        without(oats, LowRank, select="layers.9.*"),
    ):
        pass
    with pytest.raises(BadInput, match="no Dense term"), without(oats, Dense):
        pass
    with pytest.raises(BadInput, match="not compressed"), without(families["llama"](), LowRank):
        pass


def test_swapped_in_and_out_again(llama, batches, generator):
    before, names = logits(llama, batches), ["layers.0.self_attn.k_proj", "layers.2.mlp.up_proj"]
    originals = [at(llama, name) for name in names]
    replacements = {
        name: Dense(torch.randn(old.weight.shape, generator=generator).double())
        for name, old in zip(names, originals, strict=True)
    }
    with swap(llama, replacements):
        inside = at(llama, names[0])
        assert torch.equal(inside.bias, originals[0].bias)
        assert torch.equal(inside.term.weight, replacements[names[0]].weight.float())
        assert module(llama, names[1]) is replacements[names[1]]
        assert not torch.equal(logits(llama, batches), before)
    assert [module(llama, name) for name in names] == originals
    assert torch.equal(logits(llama, batches), before)


def test_a_bias_stays_in_force_where_an_operator_replaces_an_operator(oats, batches):
    """What stands there already: the model must not see its own term put back without the bias."""
    before = logits(oats, batches)
    operator = at(oats, "layers.0.self_attn.q_proj")
    with swap(oats, {"layers.0.self_attn.q_proj": operator.term}):
        assert torch.equal(logits(oats, batches), before)
    with swap(oats, {"layers.0.self_attn.q_proj": Dense(operator.term.dense().double())}):
        assert at(oats, "layers.0.self_attn.q_proj").term.weight.dtype == torch.float32


def test_a_dense_linear_can_stand_in_for_an_operator(oats, batches):
    """The way to ask what one compressed linear costs."""
    operator = operators(oats)["layers.1.mlp.down_proj"]
    linear = nn.Linear(52, 36, bias=False)
    with swap(oats, {"layers.1.mlp.down_proj": linear}):
        assert linears(oats) == {"layers.1.mlp.down_proj": linear}
    assert operators(oats)["layers.1.mlp.down_proj"] is operator


def test_a_swap_that_cannot_be_is_refused_and_nothing_is_touched(llama):
    good = {"layers.0.self_attn.k_proj": Dense(torch.ones(12, 36))}
    before = list(linears(llama).items())
    for bad, message in (
        ({"layers.0.self_attn.q_proj": Dense(torch.ones(12, 36))}, r"\(12, 36\)"),
        ({"layers.0.self_attn.q_prj": Dense(torch.ones(36, 36))}, "q_proj"),
        ({"layers.0.self_attn": Dense(torch.ones(36, 36))}, "not a linear"),
    ):
        with pytest.raises(BadInput, match=message), swap(llama, good | bad):
            pass
        assert list(linears(llama).items()) == before


def test_a_term_alone_can_be_switched_off(llama, batches):
    compress(llama, Wanda(), batches, select="*.mlp.*")
    with without(llama, Sparse):
        assert at(llama, "layers.0.mlp.up_proj").dense().count_nonzero() == 0


D_HEAD = 6  # of the tiny Llama: 6 query heads, 2 key heads


@pytest.mark.parametrize(
    ("projection", "heads", "axis"), [("q", 6, 0), ("k", 2, 0), ("v", 2, 0), ("o", 6, 1)]
)
@pytest.mark.parametrize("kind", [LowRank, Sparse])
def test_a_head_of_a_term_is_off_and_nothing_else(oats, batches, projection, heads, axis, kind):
    """A head is rows of W_Q, W_K, W_V and columns of W_O; restated entry by entry."""
    name = f"layers.1.self_attn.{projection}_proj"
    operator = at(oats, name).term
    dense, before = operator.dense(), logits(oats, batches)
    term = next(t for t in operator.modules() if type(t) is kind)
    head = heads - 1
    expected = dense.clone()
    own = slice(head * D_HEAD, (head + 1) * D_HEAD)
    index = (own, slice(None)) if axis == 0 else (slice(None), own)
    expected[index] -= term.dense()[index]
    with without(oats, kind, select=name, heads=[head]) as count:
        assert count == 1
        torch.testing.assert_close(operator.dense(), expected)
        x = torch.randn(2, 3, 36, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(operator(x), x @ expected.mT)
        assert operator.parameters_kept() == at(oats, name).parameters_kept()
        assert not torch.equal(logits(oats, batches), before)
    assert torch.equal(logits(oats, batches), before)
    assert next(t for t in operator.modules() if type(t) is kind) is term


def test_all_heads_off_is_the_term_off(oats, batches):
    select = "*.self_attn.[qo]_proj"
    with without(oats, LowRank, select=select):
        expected = logits(oats, batches)
    with without(oats, LowRank, select=select, heads=range(6)):
        torch.testing.assert_close(logits(oats, batches), expected)
    with (
        without(oats, LowRank, select=select, heads=[0, 1, 2]),
        without(oats, LowRank, select=select, heads=[3, 4, 5]),
    ):
        torch.testing.assert_close(logits(oats, batches), expected)


def test_a_head_of_a_fused_matrix_is_a_slice_of_each_part(families, batches):
    """Phi-3: queries, keys and values below each other, each with its own terms."""
    model = families["phi3"]()
    compress(model, OATS(), batches, select="layers.1.self_attn.*")
    operator = at(model, "layers.1.self_attn.qkv_proj")
    full = operator.dense()
    with without(model, LowRank, select="*.qkv_proj"):
        sparse = operator.dense()
    with without(model, LowRank, select="*.qkv_proj", heads=[1]):
        rows = (operator.dense() - full).abs().sum(1) > 0
        torch.testing.assert_close(operator.dense()[rows], sparse[rows])
    second = [range(start + D_HEAD, start + 2 * D_HEAD) for start in (0, 36, 48)]
    assert rows.nonzero().flatten().tolist() == [row for rows in second for row in rows]


@pytest.mark.parametrize(
    ("select", "heads", "message"),
    [
        ("*.mlp.up_proj", [0], "no heads"),
        ("*.k_proj", [0, 2], "head 2 is not there; its heads are 0 to 1"),
        ("*.q_proj", [], "name at least one"),
    ],
)
def test_heads_that_cannot_be_are_refused(oats, batches, select, heads, message):
    before = logits(oats, batches)
    with (
        pytest.raises(BadInput, match=message),
        without(oats, LowRank, select=select, heads=heads),
    ):
        pass
    assert torch.equal(logits(oats, batches), before)
