"""The driver's other inputs: methods by name, components, token weights, shards, shared states."""

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from bridge.component import components
from bridge.compress import compress
from bridge.compression import restore
from bridge.methods.magnitude import Magnitude
from bridge.methods.wanda import Wanda
from bridge.operators import Dense
from bridge.patterns import RowWise
from bridge.sites import linears, operators
from bridge.statistics import SecondMoment, Statistic, second_moment
from bridge.stream import hooked
from mech.errors import BadInput


@dataclass(frozen=True)
class Keeps:
    """The weight itself; what was seen of its inputs is kept."""

    seen: list
    statistic: ClassVar[Statistic[SecondMoment]] = second_moment

    def __call__(self, weight, seen):
        self.seen.append(seen)
        operator = Dense(weight)
        operator.note = "noted"
        return operator


@dataclass(frozen=True)
class Halves:
    """A component method: halves what an attention's values write, and counts tokens."""

    @contextmanager
    def watch(self, component):
        state = {"tokens": 0}

        def count(_, args, kwargs):
            x = args[0] if args else kwargs["input"]
            state["tokens"] += x.shape[:-1].numel()

        first = next(iter(component.linears.values()))
        with hooked([(first, "pre", count)]):
            yield state

    def __call__(self, component, state):
        assert state["tokens"] > 0
        if component.kind == "mlp":
            return {}
        return {"o": Dense(component.linears["o"].weight / 2)}


class Memory(dict):
    """Shards in memory."""

    def running(self, *_, **__):
        return nullcontext()

    def holds(self, layer):
        return layer in self

    def read(self, layer):
        return self.get(layer)

    def write(self, layer, done):
        self[layer] = dict(done)


def dense_of(operator):
    return getattr(operator, "term", operator).dense().clone()


def inputs_of(model, batches, linear):
    seen = []
    hook = linear.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        for tokens in batches:
            model(tokens)
    hook.remove()
    return torch.cat(seen).double()


def test_linears_that_read_one_tensor_share_its_moment(llama, batches):
    seen = []
    compression = compress(llama, Keeps(seen), batches, select="layers.0.*")
    by_name = dict(zip((row.name for row in compression.rows), seen, strict=True))
    q, k, v, o = (by_name[f"layers.0.self_attn.{p}_proj"] for p in "qkvo")
    assert q is k is v
    assert q is not o
    assert by_name["layers.0.mlp.gate_proj"] is by_name["layers.0.mlp.up_proj"]
    assert {row.note for row in compression.rows} == {"noted"}
    assert {row.output_error for row in compression.rows} == {0.0}
    restore(llama, compression)
    x = inputs_of(llama, batches, linears(llama)["layers.0.self_attn.o_proj"])
    torch.testing.assert_close(o.total, x.mT @ x, rtol=1e-12, atol=1e-12)


@dataclass(frozen=True)
class FirstRowsOnly:
    """Zero but for the first four rows; the whole second moment is seen."""

    statistic: ClassVar[Statistic[SecondMoment]] = second_moment

    def __call__(self, weight, seen):
        kept = torch.zeros_like(weight)
        kept[:4] = weight[:4]
        return Dense(kept)


def test_the_output_error_is_that_of_the_outputs(llama, batches):
    name = "layers.0.mlp.down_proj"
    weight = linears(llama)[name].weight.detach().double()
    x = inputs_of(llama, batches, linears(llama)[name])
    outputs = x @ weight.mT
    row = compress(llama, FirstRowsOnly(), batches, select=name).rows[0]
    expected = float(outputs[:, 4:].norm() / outputs.norm())
    assert 0.5 < expected < 0.99
    assert row.output_error == pytest.approx(expected, rel=1e-6)


def test_a_model_in_float64_is_as_it_was_afterwards(llama, batches):
    """Accounts are in float64: there they must not be taken in the model's own numbers."""
    llama = llama.double()
    before = {name: weight.clone() for name, weight in llama.state_dict().items()}
    compression = compress(llama, Wanda(), batches)
    assert all(row.delta_w > 0 for row in compression.rows)
    restore(llama, compression)
    assert all(torch.equal(weight, before[name]) for name, weight in llama.state_dict().items())


def test_token_weights_weigh_the_method_and_not_the_errors(llama, batches, generator):
    weights = [torch.rand(b.shape, generator=generator) for b in batches]
    seen, plain = [], []
    name = "layers.0.mlp.down_proj"
    done = compress(llama, Keeps(seen), batches, select=name, token_weights=weights)
    assert done.rows[0].output_error is None
    restore(llama, done)
    x = inputs_of(llama, batches, linears(llama)[name])
    w = torch.cat([some.flatten() for some in weights]).double()
    torch.testing.assert_close(seen[0].total, (x * w[:, None]).mT @ x, rtol=1e-5, atol=1e-8)
    ones = [torch.ones(b.shape) for b in batches]
    restore(llama, compress(llama, Keeps(plain), batches, select=name, token_weights=ones))
    torch.testing.assert_close(plain[0].total, x.mT @ x, rtol=1e-6, atol=1e-9)
    error = compress(llama, Wanda(), batches, select=name).rows[0].error
    assert error > 0


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda w: w[:-1], "one tensor a batch"),
        (lambda w: [w[0][:, :-1], *w[1:]], "of the shape"),
        (lambda w: [-w[0], *w[1:]], "at least 0"),
        (lambda w: [torch.zeros_like(some) for some in w], "all are 0"),
    ],
)
def test_token_weights_that_cannot_be_are_refused(llama, batches, spoil, why):
    weights = spoil([torch.ones(b.shape) for b in batches])
    with pytest.raises(BadInput, match=why):
        compress(llama, Wanda(), batches, token_weights=weights)
    assert not operators(llama)


def test_token_weights_with_a_component_method_are_refused(llama, batches):
    with pytest.raises(BadInput, match="components watch for themselves"):
        compress(llama, Halves(), batches, token_weights=[torch.ones(b.shape) for b in batches])
    assert not operators(llama)


def test_methods_by_name_leave_the_rest_dense(llama, batches):
    half, tenth = Wanda(), Magnitude(RowWise(0.1))
    names = list(linears(llama))
    compression = compress(llama, {names[0]: half, names[-1]: tenth}, batches)
    assert [row.name for row in compression.rows] == [names[0], names[-1]]
    assert set(operators(llama)) == {names[0], names[-1]}
    assert compression.rows[1].cost.density < compression.rows[0].cost.density
    restore(llama, compression)
    with pytest.raises(BadInput, match="names are like"):
        compress(llama, {"layers.0.nonsense": half}, batches)


def test_a_component_method_replaces_what_it_names(llama, batches):
    before = {n: linear.weight.clone() for n, linear in linears(llama).items()}
    compression = compress(llama, Halves(), batches)
    expected = [f"layers.{layer}.self_attn.o_proj" for layer in range(3)]
    assert [row.name for row in compression.rows] == expected
    found = operators(llama)
    assert sorted(found) == expected
    for name in expected:
        assert torch.equal(dense_of(found[name]), before[name] / 2)
    restore(llama, compression)
    assert not operators(llama)


def test_components_know_their_heads_and_rotation(llama):
    attention = next(c for c in components(llama) if c.kind == "attention")
    assert (attention.n_heads, attention.n_kv_heads) == (
        llama.config.num_attention_heads,
        llama.config.num_key_value_heads,
    )
    assert attention.rotary == "half"
    assert attention.names["o"] == "layers.0.self_attn.o_proj"
    assert {c.layer for c in components(llama, "layers.2.*")} == {2}
    with pytest.raises(BadInput, match="no whole attention or MLP"):
        components(llama, "*.q_proj")


def test_shards_give_back_what_they_were_given(llama, batches):
    class Once(Memory):
        def write(self, layer, done):
            super().write(layer, done)
            if layer == 1:
                raise KeyboardInterrupt

    shards = Once()
    with pytest.raises(KeyboardInterrupt):
        compress(llama, Wanda(), batches, shards=shards)
    assert not operators(llama)
    assert sorted(shards) == [0, 1]
    names: list[str] = []
    resumed = compress(llama, Wanda(), batches, shards=Memory(shards), advance=names.append)
    kept = {name: dense_of(op) for name, op in operators(llama).items()}
    restore(llama, resumed)
    whole = compress(llama, Wanda(), batches)
    assert names == [row.name for row in whole.rows] == [row.name for row in resumed.rows]
    for name, op in operators(llama).items():
        assert torch.equal(dense_of(op), kept[name])


def test_a_shard_of_another_selection_is_refused(llama, batches):
    shards = Memory()
    restore(llama, compress(llama, Wanda(), batches, select="*.q_proj", shards=shards))
    with pytest.raises(BadInput, match="holds other linears"):
        compress(llama, Wanda(), batches, shards=shards)
    assert not operators(llama)
