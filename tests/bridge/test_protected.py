"""Sink-aware compression: what is protected is exact, and paid for."""

from typing import Any

import pytest
import torch
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

from bridge.component import components
from bridge.compress import compress, compressed
from bridge.grouped import Grouped
from bridge.methods.magnitude import Magnitude
from bridge.methods.oats import OATS
from bridge.methods.wanda import Wanda
from bridge.operators import LowRank, Sparse, Sum
from bridge.planned import planned
from bridge.protected import Protected, kept_exactly
from bridge.sink_tokens import FIRST, LATER, ORDINARY, sink_labels, weights
from bridge.sites import operators
from bridge.sliced import Sliced
from bridge.statistics import diagonal_moment
from mech.capture import capture
from mech.errors import BadInput
from mech.probes import sinks

BASES = [Wanda(), OATS(compression=0.5)]


@pytest.fixture
def labels(batches, generator):
    """A first token, some later ones, in every sequence of every batch."""
    found = []
    for tokens in batches:
        label = torch.where(torch.rand(tokens.shape, generator=generator) < 0.3, LATER, ORDINARY)
        label[:, 0] = FIRST
        found.append(label)
    return found


def term_at(model, name: str) -> Any:
    """The operator at a name, without its bias."""
    operator = operators(model)[name]
    return getattr(operator, "term", operator)


def read_by(model, batches, name):
    """What a linear reads, all tokens in order."""
    seen = []
    linear: Any = model.get_submodule(name)
    hook = linear.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        for tokens in batches:
            model(tokens)
    hook.remove()
    return torch.cat(seen)


def test_sums_by_group_restated(generator):
    x = torch.randn(31, 7, generator=generator)
    label = torch.randint(0, 3, (31,), generator=generator)
    label[label == LATER] = FIRST  # a group without tokens
    seen = Grouped.empty(3, 7).with_inputs(x[:11], label[:11]).with_inputs(x[11:], label[11:])
    for group in (ORDINARY, FIRST):
        torch.testing.assert_close(seen.means[group], x[label == group].double().mean(0))
    assert seen.means[LATER].count_nonzero() == 0
    torch.testing.assert_close(
        seen.moment().total, diagonal_moment.update(diagonal_moment.init(7), x).total
    )
    centred = x.double() - seen.means[label]
    torch.testing.assert_close(seen.moment((0, 1, 2)).total, centred.square().sum(0))
    basis = seen.basis((0, 1, 2))
    assert basis.shape == (7, 2)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(basis @ basis.mT @ seen.means[0], seen.means[0])


def test_the_protected_part_is_exact_and_the_rest_is_the_methods(generator):
    weight = torch.randn(13, 19, generator=generator)
    mask = torch.rand(13, 19, generator=generator) < 0.5
    base = Sparse(torch.where(mask, weight, 0))
    basis = torch.linalg.qr(torch.randn(19, 3, generator=generator).double()).Q
    operator = kept_exactly(base, weight, basis, rows=(7, 2))
    assert isinstance(operator, Sum)
    torch.testing.assert_close(operator.dense().double() @ basis, weight.double() @ basis)
    torch.testing.assert_close(operator.dense()[[2, 7]], weight[[2, 7]])
    outside = torch.eye(19, dtype=torch.float64) - basis @ basis.mT
    others = [row for row in range(13) if row not in (2, 7)]
    torch.testing.assert_close(
        (operator.dense().double() @ outside)[others], (base.weight.double() @ outside)[others]
    )
    assert [type(term) for term in operator.each()] == [Sparse, LowRank, Sliced]


@pytest.mark.parametrize("base", BASES, ids=["wanda", "oats"])
def test_on_a_model_what_sinks_read_gives_what_it_gave(llama, batches, labels, base):
    """Block 0 reads what the dense model reads there: its means go through every linear exactly."""
    before = {}
    label = torch.cat([one.flatten() for one in labels])
    for component in components(llama, "layers.0.*"):
        for role, name in component.names.items():
            path = f"model.{name}"
            weight = component.linears[role].weight.detach()
            x = read_by(llama, batches, path)
            means = torch.stack([x[label == group].mean(0) for group in range(3)])
            before[name] = means, means @ weight.mT, x
    done = compress(llama, Protected(base, labels), batches)
    for name, (means, expected, _) in before.items():
        torch.testing.assert_close(term_at(llama, name)(means), expected, rtol=1e-4, atol=1e-4)
    for row in done.rows:
        spent = planned(base, [row.shape]).kept
        assert row.cost.kept <= spent
        # A step of the base's open number is at most one entry a row and one rank.
        assert row.cost.kept > spent - row.shape[0] - sum(row.shape)


def test_a_shared_expert_reads_the_tokens_of_all_windows_in_a_row(batches, labels):
    torch.manual_seed(0)
    config = Qwen2MoeConfig(
        vocab_size=97, hidden_size=36, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=20,
        shared_expert_intermediate_size=28,
    )  # fmt: skip
    mixture: Any = Qwen2MoeForCausalLM(config).eval()
    name = "layers.0.mlp.shared_expert.gate_proj"
    weight = mixture.get_submodule(f"model.{name}").weight.detach().clone()
    x = read_by(mixture, batches, f"model.{name}").reshape(-1, 36)
    label = torch.cat([one.flatten() for one in labels])
    means = torch.stack([x[label == group].mean(0) for group in range(3)])
    compress(mixture, Protected(Wanda(), labels), batches, select="layers.0.*")
    torch.testing.assert_close(
        term_at(mixture, name)(means), means @ weight.mT, rtol=1e-4, atol=1e-4
    )


def test_plain_methods_do_not_keep_it(llama, batches, labels):
    label = torch.cat([one.flatten() for one in labels])
    x = read_by(llama, batches, "model.layers.0.self_attn.q_proj")
    means = torch.stack([x[label == group].mean(0) for group in range(3)])
    weight = llama.get_submodule("model.layers.0.self_attn.q_proj").weight.detach()
    with compressed(llama, Wanda(), batches):
        off = term_at(llama, "layers.0.self_attn.q_proj").dense() - weight
        assert (off @ means.mT).norm() > 0.05 * (weight @ means.mT).norm()


def test_rows_of_the_writers_are_whole_and_no_others(llama, batches, labels):
    weights_ = {n: p.detach().clone() for n, p in llama.named_parameters()}
    compress(llama, Protected(Wanda(), labels, rows=(35, 4)), batches)
    for name in operators(llama):
        weight = weights_[f"model.{name}.weight"]
        whole = (
            torch.isclose(term_at(llama, name).dense(), weight, rtol=1e-4, atol=1e-5)
            .all(1)
            .nonzero()
        )
        expected = [4, 35] if name.endswith(("o_proj", "down_proj")) else []
        assert whole.flatten().tolist() == expected, name


def test_the_control_spends_the_same_and_keeps_something_else(llama, batches, labels):
    spent, dense = [], []
    for seed in (None, 0, 0, 1):
        method = Protected(Wanda(), labels, random=seed)
        with compressed(llama, method, batches) as done:
            spent.append(done.cost.kept)
            dense.append(term_at(llama, "layers.1.mlp.up_proj").dense())
    assert len(set(spent)) == 1
    assert torch.equal(dense[1], dense[2])
    assert not torch.equal(dense[1], dense[3])
    assert not torch.equal(dense[0], dense[1])


def test_the_terms_switch_off_like_any_others(llama, batches, labels):
    compress(llama, Protected(OATS(), labels), batches, select="layers.1.mlp.*")
    (operator, *_) = operators(llama).values()
    assert isinstance(operator, Sum)
    assert [type(t) for t in operator.each()] == [Sparse, LowRank, LowRank]


def test_what_cannot_be_is_refused(llama, batches, labels):
    with pytest.raises(BadInput, match="protect Wanda or OATS"):
        Protected(Magnitude(), labels)
    with pytest.raises(BadInput, match="batch 2"):
        compress(llama, Protected(Wanda(), labels[:2]), batches)
    with pytest.raises(BadInput, match="batch 0"):
        compress(llama, Protected(Wanda(), [one.mT for one in labels]), batches)
    with pytest.raises(BadInput, match="needs at least"):
        compress(llama, Protected(OATS(compression=0.99), labels), batches)


def test_other_labels_are_another_method(labels):
    first = Protected(Wanda(), labels)
    assert first == Protected(Wanda(), [one.clone() for one in labels])
    assert first != Protected(Wanda(), labels[::-1])
    assert first.digest in repr(first)


def test_sinks_are_told_as_the_probe_counts_them(llama, generator):
    """Restated from whole patterns: α of every head, counted over all layers."""
    tokens = [torch.randint(3, 97, (n, 64), generator=generator) for n in (2, 1)]
    found = sink_labels(llama, tokens, epsilon=0.02, least=3)
    for ids, label in zip(tokens, found, strict=True):
        alpha = sinks.score(sinks.received_of(capture(llama, ids)))
        heads = torch.from_numpy((alpha > 0.02).sum(axis=(0, 2)))
        expected = torch.where(heads >= 3, LATER, ORDINARY)
        expected[:, 64 - sinks.SUPPORT :] = ORDINARY
        expected[:, 0] = FIRST
        assert torch.equal(label, expected)
    assert any((label == LATER).any() for label in found)
    with pytest.raises(BadInput, match="at least 64"):
        sink_labels(llama, [tokens[0][:, :63]])


def test_weights_of_the_labels(labels):
    found = weights(labels, 9.0)
    for weight, label in zip(found, labels, strict=True):
        assert torch.equal(weight, torch.where(label == ORDINARY, 1.0, 9.0))
    with pytest.raises(BadInput, match="above 0"):
        weights(labels, 0.0)
