"""Sparse decoding against its definition, token by token, in models of six families."""

from typing import Any

import pytest
import torch
from torch import nn

from bridge.decode.gated import Gated
from bridge.decode.inputs import calibrate
from bridge.decode.phase import Phase
from bridge.decode.plan import Setting
from bridge.decode.recipe import fit
from bridge.decode.sparsified import sparsified
from bridge.manifest import content_hash
from bridge.sites import linears, operators
from ctr_kernels.sparse_gemv.reference import active
from mech.errors import BadInput

MIXED = (
    Setting(0.5, 0.8, "column", "moment"),
    Setting(0.6),
    Setting(0.4, 0.9, "magnitude", "svd"),
    Setting(0.7, 0.0),
)


def plan_of(model, head: bool = True) -> dict[str, Setting]:
    names = [*linears(model), *(["head"] if head else [])]
    return {name: MIXED[i % len(MIXED)] for i, name in enumerate(names)}


def recipe_of(model, batches, plan=None):
    plan = plan or plan_of(model)
    found = fit(model, plan, calibrate(model, batches, head="head" in plan))
    bias = {
        name: torch.randn(linear.out_features, generator=torch.Generator().manual_seed(i)) / 50
        for i, (name, linear) in enumerate(linears(model).items())
        if i % 3 == 0
    }
    return type(found)(**{**vars(found), "bias": bias})


class Defined:
    """The definition by hooks on the dense model: no operator, no kernel, one token at a time."""

    def __init__(self, model, recipe, sparse_from: float):
        self.model, self.recipe, self.sparse_from, self.seq = model, recipe, sparse_from, 0

    def __enter__(self):
        modules = {**linears(self.model), "head": self.model.get_output_embeddings()}
        self.handles = [
            modules[name].register_forward_hook(self.hook(name)) for name in self.recipe.plan
        ]
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()

    def hook(self, name):
        def replaced(module: Any, args: tuple[torch.Tensor], y: torch.Tensor):
            x = args[0]
            gated = self.seq - (0 if self.seq == 1 else int(self.seq * self.sparse_from))
            y = y.clone()
            for sequence in range(x.shape[0]):
                for token in range(x.shape[1]):
                    if x.shape[1] - token <= gated:
                        y[sequence, token] = self.one(name, module, x[sequence, token])
            return y

        return replaced

    def one(self, name, module, x):
        recipe = self.recipe
        keep = ~(x.abs() <= recipe.thresholds[name])
        y = module.weight.double() @ (x.double() * keep)
        if name in recipe.down:
            rest = x.double() * ~keep
            y = y + recipe.up[name].double().mT @ (recipe.down[name].double().mT @ rest)
        for bias in (module.bias, recipe.bias.get(name)):
            y = y if bias is None else y + bias.double()
        return y.to(x.dtype)

    @torch.no_grad()
    def logits(self, ids, past=None):
        self.seq = ids.shape[1]
        return self.model(ids, past_key_values=past, use_cache=True)


@torch.no_grad()
def test_steps_equal_the_definition_token_by_token(model, batches):
    """A prompt, then steps with the cache: batch 2, grouped queries, biases, fused projections."""
    recipe, ids = recipe_of(model, batches), batches[0]
    for sparse_from in (0.0, 0.5, 1.0):
        found, wanted = [], []
        with sparsified(model, recipe, sparse_from=sparse_from, layout="rows") as decoding:
            assert set(decoding.backends.values()) == {"cpu"}
            past = None
            for piece in (ids[:, :13], *ids[:, 13:].split(1, 1)):
                out = model(piece, past_key_values=past, use_cache=True)
                past = out.past_key_values
                found.append(out.logits)
        with Defined(model, recipe, sparse_from) as defined:
            past = None
            for piece in (ids[:, :13], *ids[:, 13:].split(1, 1)):
                out = defined.logits(piece, past)
                past = out.past_key_values
                wanted.append(out.logits)
        torch.testing.assert_close(torch.cat(found, 1), torch.cat(wanted, 1), rtol=1e-4, atol=1e-4)
        # 13 tokens of a prompt, 4 steps.
        dense = int(13 * sparse_from)
        assert decoding.tokens_sparse == (17 - dense) / 17


@torch.no_grad()
@pytest.mark.parametrize("sparse_from", [0.5, 1.0])
def test_generate_works_and_says_what_the_definition_says(model, batches, sparse_from):
    recipe, ids = recipe_of(model, batches), batches[0]
    with sparsified(model, recipe, sparse_from=sparse_from) as decoding:
        said = model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None)
    assert said.shape == (2, 23)
    # The last token is said, and not read.
    assert decoding.tokens_sparse == (22 - int(17 * sparse_from)) / 22
    with Defined(model, recipe, sparse_from) as defined:
        past, piece, wanted = None, ids, []
        for _ in range(6):
            out = defined.logits(piece, past)
            past, piece = out.past_key_values, out.logits[:, -1:].argmax(-1)
            wanted.append(piece)
    assert torch.equal(said[:, 17:], torch.cat(wanted, 1))


@torch.no_grad()
def test_the_model_is_what_it_was(model, batches):
    recipe = recipe_of(model, batches)
    before, logits = content_hash(model), model(batches[0]).logits
    strides = {name: p.stride() for name, p in model.named_parameters()}
    parameters = dict(model.named_parameters())
    for layout in ("rows", "shared"):
        with sparsified(model, recipe, layout=layout, sparse_from=0.0):
            assert len(operators(model)) == len(linears_of(recipe))
            # The same parameters: nothing is stored twice, and nobody else loses its weights.
            inside = {id(p) for p in model.parameters()}
            assert inside == {id(p) for p in parameters.values()}
            assert not torch.equal(model(batches[0]).logits, logits)
        assert content_hash(model) == before
        assert {n: p.stride() for n, p in model.named_parameters()} == strides
        assert torch.equal(model(batches[0]).logits, logits)
        assert not operators(model)


@torch.no_grad()
def test_a_head_that_is_given_the_last_token_gates_it(llama, batches):
    with sparsified(llama, recipe_of(llama, batches), sparse_from=0.5):
        whole = llama(batches[0]).logits[:, -1:]
        last = llama(batches[0], logits_to_keep=1).logits
    torch.testing.assert_close(last, whole, rtol=1e-5, atol=1e-6)


def linears_of(recipe):
    return [name for name in recipe.plan if name != "head"]


@torch.no_grad()
def test_an_error_inside_leaves_the_model_as_it_was(llama, batches):
    recipe, before = recipe_of(llama, batches), content_hash(llama)
    with pytest.raises(RuntimeError, match="inside"), sparsified(llama, recipe):
        raise RuntimeError("inside")
    assert content_hash(llama) == before
    assert not operators(llama)


@torch.no_grad()
def test_a_recipe_that_keeps_everything_is_the_dense_model(model, batches):
    plan = dict.fromkeys(plan_of(model), Setting(0.0))
    recipe = fit(model, plan, calibrate(model, batches, head=True))
    logits = model(batches[0]).logits
    with sparsified(model, recipe, sparse_from=0.0, count=True) as decoding:
        torch.testing.assert_close(model(batches[0]).logits, logits, rtol=1e-5, atol=1e-5)
    assert decoding.read == 1.0


@torch.no_grad()
def test_what_is_read_is_counted(llama, batches):
    """On the text of the calibration the share of channels is the planned one, to an entry."""
    plan = {name: Setting(0.5, 0.8) for name in linears(llama) if name.startswith("layers.0.")}
    inputs = calibrate(llama, batches)
    recipe = fit(llama, plan, inputs)
    name = "layers.0.self_attn.q_proj"  # nothing before it is gated
    with sparsified(llama, recipe, sparse_from=0.0, count=True) as decoding:
        for ids in batches:
            llama(ids)
        wanted = plan[name].channels(*linears_shape(recipe, name))
        assert decoding.gated[name].read == pytest.approx(wanted, abs=1e-3)
        first = decoding.gated[name].read
        decoding.gated[name].reset()
        llama(batches[0][:, :1])
        x = inputs.rows(name)[:1]
        assert decoding.gated[name].read != first
        assert active(x, recipe.thresholds[name]).any()


def linears_shape(recipe, name):
    return tuple(int(size) for size in recipe.likeness[name][:2])


@torch.no_grad()
def test_weights_are_shared_and_the_memory_is_told(llama, batches):
    plan = dict.fromkeys(linears(llama), Setting(0.5, 0.6))
    recipe = fit(llama, plan, calibrate(llama, batches))
    factors = sum(t.nbytes for part in (recipe.down, recipe.up) for t in part.values())
    thresholds = sum(t.nbytes for t in recipe.thresholds.values())
    weights = sum(linear.weight.nbytes for linear in linears(llama).values())
    with sparsified(llama, recipe) as decoding:
        assert decoding.memory == (weights, factors + thresholds)
        for gated in decoding.gated.values():
            assert gated.rows is not None
            assert gated.rows.values.data_ptr() == gated.weight.data_ptr()
    assert decoding.reasons == {}


@torch.no_grad()
def test_tied_embeddings_stay_tied_under_a_sparse_head(batches):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=36,
        intermediate_size=52,
        num_hidden_layers=2,
        num_attention_heads=6,
        tie_word_embeddings=True,
    )
    model: Any = LlamaForCausalLM(config).eval()
    recipe = fit(model, {"head": Setting(0.5)}, calibrate(model, batches, head=True))
    with sparsified(model, recipe) as decoding:
        assert model.get_output_embeddings() is decoding.gated["head"]
        assert model.get_input_embeddings().weight is decoding.gated["head"].weight
        found = model.generate(batches[0], max_new_tokens=4, do_sample=False, eos_token_id=None)
    with Defined(model, recipe, 1.0) as defined:
        past, piece, wanted = None, batches[0], []
        for _ in range(4):
            out = defined.logits(piece, past)
            past, piece = out.past_key_values, out.logits[:, -1:].argmax(-1)
            wanted.append(piece)
    assert torch.equal(found[:, 17:], torch.cat(wanted, 1))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@torch.no_grad()
def test_a_recipe_fitted_in_float32_serves_other_formats(llama, batches, dtype, generator):
    recipe = recipe_of(llama, batches)
    llama.to(dtype)
    with sparsified(llama, recipe) as decoding:
        found = llama.generate(batches[0], max_new_tokens=3, do_sample=False, eos_token_id=None)
        assert found.shape == (2, 20)
        if dtype == torch.float64:
            assert set(decoding.backends.values()) == {"reference"}
            assert all("float64" in reason for reason in decoding.reasons.values())
        else:
            assert set(decoding.backends.values()) == {"cpu"}
        for gated in decoding.gated.values():
            x = torch.randn(1, 1, gated.shape[1], generator=generator).to(dtype)
            keep = ~(x.abs().to(gated.threshold.dtype) <= gated.threshold)
            kept, rest, weight = (x * keep).double(), (x * ~keep).double(), gated.weight.double()
            y, size = kept @ weight.mT, kept.abs() @ weight.abs().mT
            if gated.down is not None and gated.up is not None:
                y = y + rest @ gated.down.double() @ gated.up.double()
                size = size + rest.abs() @ gated.down.double().abs() @ gated.up.double().abs()
            for bias in (gated.bias, gated.extra):
                y, size = (y, size) if bias is None else (y + bias, size + bias.abs())
            # Three products at most, each rounded once, and their sums.
            bound = 4 * torch.finfo(dtype).eps * size + 1e-6
            for seq in (1, 2):  # by the kernel, by masks
                gated.phase.sparse_from = 0.0
                gated.phase.begin(1, seq)
                assert bool(((gated(x) - y).abs() <= bound).all())


@torch.no_grad()
def test_without_a_kernel_the_definition_runs_and_is_told(llama, batches, monkeypatch):
    from ctr_kernels.op import Unsupported
    from ctr_kernels.sparse_gemv import prepared

    def refuse(*_):
        raise Unsupported("no compiler here")

    recipe = recipe_of(llama, batches)

    def said():
        with sparsified(llama, recipe) as decoding:
            ids = llama.generate(batches[0], max_new_tokens=4, do_sample=False, eos_token_id=None)
        return ids, decoding

    wanted, _ = said()
    monkeypatch.setattr(prepared, "_bound", refuse)
    found, decoding = said()
    assert torch.equal(found, wanted)
    assert set(decoding.backends.values()) == {"reference"}
    assert set(decoding.reasons.values()) == {"no compiler here"}


def test_what_cannot_be_asked_is_refused(llama, batches):
    recipe = recipe_of(llama, batches)
    with (
        pytest.raises(BadInput, match=r"sparse_from 1\.5"),
        sparsified(llama, recipe, sparse_from=1.5),
    ):
        pass
    with sparsified(llama, recipe), pytest.raises(BadInput, match="no linear"):
        recipe.check(llama)
    unknown = {"layers.9.mlp.up_proj": Setting(0.5)}
    with pytest.raises(BadInput, match=r"no linear called 'layers\.9\.mlp\.up_proj'"):
        fit(llama, unknown, calibrate(llama, batches))


def test_a_gate_counts_what_a_token_costs(generator):
    linear = nn.Linear(40, 24)
    threshold = torch.full((40,), 0.5)
    down, up = torch.randn(40, 3, generator=generator), torch.randn(3, 24, generator=generator)
    gate = Gated(linear, Phase(0.0), threshold, down, up, channels=0.25, count=True)
    assert (gate.shape, gate.rank, gate.inner()) == ((24, 40), 3, 3)
    assert gate.parameters_kept() == 24 * 40 + 3 * 64
    assert gate.bits() == 32 * (24 * 40 + 3 * 64) + 32 * 40
    read = 0.25 * 24 * 40 + 3 * (0.75 * 40 + 24)
    assert gate.flops() == 2 * read
    assert gate.bytes_moved() == 4 * read + 4 * 40 + 4 * (24 + 40 + 6)
    gate.phase.begin(1, 4)
    gate(torch.ones(1, 4, 40))
    assert gate.read == 1.0


def test_gradients_pass_through_steps(generator):
    """A kernel knows no gradients: an input that wants one goes by dense products."""
    linear = nn.Linear(16, 8).requires_grad_(False)
    gate = Gated(linear, Phase(1.0), torch.full((16,), 0.5))
    from ctr_kernels.sparse_gemv.rows import Rows

    gate.bind(Rows(linear.weight.detach().mT.contiguous(), 8))
    gate.phase.begin(1, 1)
    x = torch.randn(1, 1, 16, generator=generator, requires_grad=True)
    gate(x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad[0, 0] != 0, (x.abs() > 0.5)[0, 0])
