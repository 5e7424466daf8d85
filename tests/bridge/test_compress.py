"""The driver: what it carries, what it replaces, what it undoes."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from bridge import walk
from bridge.compress import compress, compressed
from bridge.compression import restore
from bridge.methods import METHODS
from bridge.methods.magnitude import Magnitude
from bridge.methods.oats import OATS
from bridge.methods.wanda import Wanda
from bridge.operators import Dense, LinearOperator, Operator, Sparse, Stack
from bridge.replace import replaced
from bridge.sites import linears, operators
from bridge.statistics import Count, Moment, Statistic, diagonal_moment, nothing
from bridge.stream import record
from bridge.watch import Seen
from mech.blocks import decoder_blocks
from mech.errors import BadInput


@dataclass(frozen=True)
class Same:
    """The weight itself."""

    statistic: ClassVar[Statistic[Count]] = nothing

    def __call__(self, weight, seen) -> LinearOperator:
        return Dense(weight)


@dataclass(frozen=True)
class FailsAt:
    """A method that fails after a few linears, as one that runs out of memory would."""

    calls: list
    statistic: ClassVar[Statistic[Count]] = nothing

    def __call__(self, weight, seen) -> LinearOperator:
        self.calls.append(weight.shape)
        if len(self.calls) == 9:
            raise RuntimeError("out of memory")
        return Dense(torch.zeros_like(weight))


def blocks(model) -> Any:
    return decoder_blocks(model)


def logits(model, batches):
    with torch.no_grad():
        return [model(tokens).logits for tokens in batches]


def states(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_untouched(model, before):
    assert not operators(model)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_what_is_carried_is_what_a_full_pass_would_give(model, batches, monkeypatch):
    """Inputs of every compressed linear's block, as the driver saw them, against a whole pass."""
    carried = []
    watch = walk.watch

    def spy(block, here, statistics, stream, *rest):
        carried.append([resid.clone() for resid in stream])
        return watch(block, here, statistics, stream, *rest)

    monkeypatch.setattr(walk, "watch", spy)
    compress(model, Wanda(), batches)
    assert len(carried) == 3
    for layer, block in enumerate(blocks(model)):
        seen = []

        def keep(_, args, kwargs, seen=seen):
            seen.append(args[0] if args else kwargs["hidden_states"])

        hook = block.register_forward_pre_hook(keep, with_kwargs=True)
        logits(model, batches)
        hook.remove()
        for ours, whole in zip(carried[layer], seen, strict=True):
            assert torch.equal(ours, whole)


def test_statistics_come_from_the_compressed_prefix_and_the_dense_block(llama, batches):
    """Block 1's o_proj reads what a dense block 1 emits behind a compressed block 0."""
    inputs = []
    half = compress(llama, Wanda(), batches, select="layers.0.*")
    o_proj = blocks(llama)[1].self_attn.o_proj
    hook = o_proj.register_forward_pre_hook(lambda _, args: inputs.append(args[0].flatten(0, -2)))
    logits(llama, batches)
    hook.remove()
    moment = diagonal_moment.update(diagonal_moment.init(36), torch.cat(inputs))
    expected = Wanda()(o_proj.weight.detach(), moment).dense()
    restore(llama, half)
    compress(llama, Wanda(), batches)
    assert torch.equal(blocks(llama)[1].self_attn.o_proj.term.dense(), expected)


def test_the_identity_changes_no_logit(model, batches):
    before = logits(model, batches)
    compression = compress(model, Same(), batches)
    assert compression.density == 1
    assert compression.delta_w == 0
    for after, expected in zip(logits(model, batches), before, strict=True):
        # x Wᵀ + b in one kernel or in two: an ulp a linear.
        torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-5)


def test_every_linear_of_every_block_and_nothing_else(model, batches):
    names = list(linears(model))
    untouched = {
        name: tensor
        for name, tensor in states(model).items()
        if not any(name.removesuffix(".weight").endswith(n.removeprefix("layers")) for n in names)
    }
    compression = compress(model, OATS(), batches)
    assert [row.name for row in compression.rows] == names
    assert list(operators(model)) == names
    assert not any(isinstance(m, nn.Linear) for m in blocks(model).modules())
    assert isinstance(model.get_output_embeddings(), nn.Linear)
    after = model.state_dict()
    for name, tensor in untouched.items():
        if name in after:
            assert torch.equal(after[name], tensor)
    assert all(torch.isfinite(x).all() for x in logits(model, batches))


def test_restoring_brings_the_model_back_exactly(model, batches):
    before, expected = states(model), logits(model, batches)
    with compressed(model, OATS(), batches):
        assert not torch.equal(logits(model, batches)[0], expected[0])
    assert_untouched(model, before)
    assert all(torch.equal(a, b) for a, b in zip(logits(model, batches), expected, strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_rows_report_what_was_done(name, llama, batches):
    before = {n: linear.weight.detach().clone() for n, linear in linears(llama).items()}
    compression = compress(llama, METHODS[name](), batches)
    by_block: dict[int, list] = {}
    for row in compression.rows:
        operator: Any = operators(llama)[row.name]
        dense = operator.term.dense() if row.name.endswith(("q_proj", "o_proj")) else None
        if dense is not None:
            change = (before[row.name] - dense).square().mean()
            assert row.delta_w == pytest.approx(float(change), rel=1e-5)
        assert row.shape == tuple(before[row.name].shape)
        assert row.cost.kept == operator.parameters_kept()
        assert 0 < row.error < 1
        by_block.setdefault(int(row.name.split(".")[1]), []).append(row)
    mean = [
        sum(r.delta_w * r.shape[0] * r.shape[1] for r in rows)
        / sum(r.shape[0] * r.shape[1] for r in rows)
        for rows in by_block.values()
    ]
    assert compression.delta_w == pytest.approx(sum(mean) / 3)
    assert compression.tokens == 5 * 17
    assert compression.density == sum(r.cost.kept for r in compression.rows) / sum(
        w.numel() for w in before.values()
    )


def test_a_selection_leaves_the_rest_dense(llama, batches):
    done = []
    compression = compress(llama, Wanda(), batches, select="*.[qk]_proj", advance=done.append)
    expected = [f"layers.{i}.self_attn.{p}_proj" for i in range(3) for p in "qk"]
    assert done == expected == list(operators(llama)) == [row.name for row in compression.rows]
    assert len(linears(llama)) == 3 * 5


def test_a_selection_of_nothing_names_what_there_is(llama, batches):
    before = states(llama)
    with pytest.raises(BadInput, match=r"layers\.\d\.self_attn\.q_proj"):
        compress(llama, Wanda(), batches, select="layers.1.self_attn.qproj")
    assert_untouched(llama, before)


def test_refuses_to_compress_twice_and_without_text(llama, batches):
    with pytest.raises(BadInput, match="calibration"):
        compress(llama, Wanda(), [])
    compress(llama, Wanda(), batches)
    with pytest.raises(BadInput, match="no linear"):
        compress(llama, Wanda(), batches)


def test_a_failure_halfway_leaves_the_model_as_it_was(llama, batches):
    llama.train()
    before, failing = states(llama), FailsAt([])
    with pytest.raises(RuntimeError, match="out of memory"):
        compress(llama, failing, batches)
    assert len(failing.calls) == 9  # two linears of block 1 were already to be replaced
    assert_untouched(llama, before)
    assert llama.training


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(llama, batches, value):
    with torch.no_grad():
        blocks(llama)[2].mlp.up_proj.weight[3, 4] = value
    expected = list(linears(llama).values())
    with pytest.raises(BadInput, match=r"layers\.2\.mlp\.up_proj: its weight is not finite"):
        compress(llama, Wanda(), batches)
    assert list(linears(llama).values()) == expected


def test_a_dense_model_that_overflows_is_refused(llama, batches):
    with torch.no_grad():
        blocks(llama)[1].post_attention_layernorm.weight[0] = float("inf")
    kept = list(linears(llama).values())
    with pytest.raises(BadInput, match=r"layers\.1: its output .* before anything"):
        compress(llama, Wanda(), batches)
    assert list(linears(llama).values()) == kept


def test_inputs_that_are_not_finite_are_named(llama):
    name, linear = next(iter(linears(llama).items()))
    moment = Moment(torch.full((36,), torch.inf, dtype=torch.float64), 3)
    with pytest.raises(BadInput, match=r"layers\.0\.self_attn\.q_proj: the second moment"):
        replaced(llama, name, linear, Wanda(), Seen(moment, moment), weighted=False)
    unseen = diagonal_moment.init(36)
    with pytest.raises(BadInput, match="no calibration token reached it"):
        replaced(llama, name, linear, Wanda(), Seen(unseen, unseen), weighted=False)
    assert not operators(llama)


def test_outputs_that_are_not_finite_are_named(llama, batches):
    @dataclass(frozen=True)
    class Huge:
        statistic: ClassVar[Statistic[Count]] = nothing

        def __call__(self, weight, seen) -> LinearOperator:
            return Dense(torch.full_like(weight, 1e30))

    kept = list(linears(llama).values())
    with pytest.raises(BadInput, match=r"layers\.0: its output is not finite"):
        compress(llama, Huge(), batches, select="layers.0.mlp.*")
    assert list(linears(llama).values()) == kept


def test_a_dead_input_channel_is_no_trouble(llama, batches):
    with torch.no_grad():
        for block in blocks(llama):
            block.input_layernorm.weight[5] = 0
    compress(llama, OATS(), batches)
    assert all(torch.isfinite(x).all() for x in logits(llama, batches))


def test_fused_queries_keys_and_values_are_three_matrices(batches, families):
    phi3 = families["phi3"]()
    weight = blocks(phi3)[0].self_attn.qkv_proj.weight.detach().clone()
    compress(phi3, Magnitude(), batches)
    operator = blocks(phi3)[0].self_attn.qkv_proj
    assert isinstance(operator, Stack)
    assert [part.shape for part in operator.each()] == [(36, 36), (12, 36), (12, 36)]
    seen = Count(85)
    expected = [Magnitude()(part, seen).dense() for part in weight.split([36, 12, 12])]
    assert torch.equal(operator.dense(), torch.cat(expected))
    assert isinstance(blocks(phi3)[0].mlp.gate_up_proj, Sparse)


def test_half_precision_stays_half_precision(llama, batches):
    llama.to(torch.bfloat16)
    compress(llama, OATS(), batches)
    assert {p.dtype for p in llama.state_dict().values()} == {torch.bfloat16}
    assert all(isinstance(op, Operator) for op in operators(llama).values())


def test_a_model_that_edits_the_stream_between_blocks_is_refused(llama, batches):
    second = blocks(llama)[1]
    second.register_forward_pre_hook(lambda _, args: (args[0] + 1, *args[1:]))
    with pytest.raises(BadInput, match="alters the stream between blocks 0 and 1"), torch.no_grad():
        record(llama, batches)


def test_ids_that_cannot_be_run_are_refused_before_anything_runs(llama, batches):
    with pytest.raises(BadInput, match="id 970 is outside the vocabulary of 97"):
        compress(llama, Wanda(), [*batches, torch.full((1, 5), 970)])
    with pytest.raises(BadInput, match="no tokens"):
        compress(llama, Wanda(), [*batches, batches[0][:, :0]])
