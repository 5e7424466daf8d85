"""Compiled steps are the model's own: logits token by token, generate, batches, padding, caches."""

import copy

import pytest
import torch
import transformers

from bridge.decode.fast import fast
from bridge.decode.fast_cache import Held
from bridge.decode.inputs import calibrate
from bridge.decode.places import HEAD
from bridge.decode.plan import Setting
from bridge.decode.recipe import fit
from bridge.decode.sparsified import sparsified
from bridge.sites import linears
from ctr_kernels.sparse_gemv.pack import int8_rows

PROMPT = torch.tensor([[5, 17, 40, 3, 88, 23, 9], [11, 90, 35, 60, 4, 7, 52]])


@pytest.fixture(params=["llama", "mistral", "qwen2"])
def shaped(request, families):
    """A tiny model of each family that compiled steps know; biases, grouped queries."""
    if request.param == "llama":
        return families["llama"]()
    sizes = families["llama"]().config.to_dict()
    keep = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    sizes = {k: sizes[k] for k in (*keep, "num_attention_heads", "num_key_value_heads")}
    name = request.param.capitalize()
    more = {"sliding_window": None, "head_dim": 10} if name == "Mistral" else {}
    config = getattr(transformers, f"{name}Config")(**sizes, **more)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return model


@torch.no_grad()
def logits(model, ids, steps, mask=None):
    """Of `steps` tokens, chosen by number, after a prompt."""
    run = model(input_ids=ids, attention_mask=mask, use_cache=True)
    cache, found = copy.deepcopy(run.past_key_values), []
    for i in range(steps):
        token = (3 * i + ids[:, :1]) % 89 + 3
        more = {}
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(len(ids), 1)], 1)
            more = {"attention_mask": mask, "position_ids": mask.sum(1, keepdim=True) - 1}
        out = model(input_ids=token, past_key_values=cache, use_cache=True, **more)
        found.append(out.logits)
    return torch.cat(found, 1), cache


def same(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


@pytest.mark.parametrize("batch", [1, 2])
def test_logits_and_cache(shaped, batch):
    wanted, own = logits(shaped, PROMPT[:batch], 9)
    with fast(shaped) as run:
        found, cache = logits(shaped, PROMPT[:batch], 9)
    assert (run.steps, dict(run.declined)) == (9, {"more than one token a sequence": 1})
    same(found, wanted)
    for ours, theirs in zip(cache.layers, own.layers, strict=True):
        assert type(ours) is Held
        same(ours.keys, theirs.keys)
        same(ours.values, theirs.values)


def test_padding_on_the_left(llama):
    mask = torch.ones_like(PROMPT)
    mask[0, :3] = 0
    wanted, _ = logits(llama, PROMPT, 4, mask)
    with fast(llama) as run:
        found, _ = logits(llama, PROMPT, 4, mask)
    assert run.steps == 4
    same(found, wanted)


@pytest.mark.parametrize("more", [{}, {"num_beams": 3}, {"do_sample": True, "top_k": 5}])
def test_generate(llama, more):
    def generated():
        torch.manual_seed(0)
        mask = torch.ones_like(PROMPT)
        return llama.generate(PROMPT, attention_mask=mask, max_new_tokens=12, **more)

    wanted = generated()
    with fast(llama) as run:
        found = generated()
    assert run.steps >= 10
    assert torch.equal(found, wanted)
    assert torch.equal(generated(), wanted)
    assert run.steps <= 12


def test_bfloat16_is_no_further_from_the_truth_than_the_model_itself(llama):
    exact, _ = logits(llama.double(), PROMPT, 6)
    llama.bfloat16()
    own, _ = logits(llama, PROMPT, 6)
    with fast(llama) as run:
        found, _ = logits(llama, PROMPT, 6)
    assert run.steps == 6
    assert found.dtype == torch.bfloat16
    assert (found - exact).square().mean() <= 1.1 * (own - exact).square().mean()


def test_a_cropped_cache_is_continued(llama):
    _, cache = logits(llama, PROMPT, 2)
    token = PROMPT[:, :1]
    with torch.no_grad(), fast(llama) as run:
        llama(input_ids=token, past_key_values=cache)
        cache.crop(-2)
        theirs = copy.deepcopy(cache)
        found = llama(input_ids=token, past_key_values=cache).logits
        assert cache.get_seq_length() == theirs.get_seq_length() + 1
    assert run.steps == 2
    with torch.no_grad():
        same(found, llama(input_ids=token, past_key_values=theirs).logits)


def test_others_are_left_alone_and_reported(families):
    for name, why in (
        ("gemma2", "gemma2 is not one of llama, mistral, qwen2"),
        ("mistral", "attention slides over a window"),
    ):
        model = families[name]()
        wanted, _ = logits(model, PROMPT, 2)
        with fast(model) as run:
            found, _ = logits(model, PROMPT, 2)
        assert torch.equal(found, wanted)
        assert run.steps == 0
        assert run.declined == {why: 3}


def test_more_than_logits_is_the_models_own(llama):
    with torch.no_grad(), fast(llama) as run:
        cache = llama(input_ids=PROMPT, use_cache=True).past_key_values
        out = llama(input_ids=PROMPT[:, :1], past_key_values=cache, output_hidden_states=True)
    assert out.hidden_states is not None
    assert run.declined["output_hidden_states is asked for"] == 1
    assert "forward" not in vars(llama)


def gating(model, **more):
    """A recipe for every linear and the head, factors and all."""
    plan = {name: Setting(0.5, 0.7) for name in [*linears(model), HEAD]}
    inputs = calibrate(model, [PROMPT.repeat(1, 3)], head=True)
    return sparsified(model, fit(model, plan, inputs), **more)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("packed", [False, True])
def test_gated_linears_in_one_call_and_by_parts(llama, batch, packed):
    rows = {n: int8_rows(m.weight.detach()) for n, m in linears(llama).items()} if packed else {}
    with gating(llama, rows=rows) as decoding:
        assert set(decoding.backends.values()) == {"cpu"}
        wanted, _ = logits(llama, PROMPT[:batch], 5)
        with fast(llama) as run:
            found, _ = logits(llama, PROMPT[:batch], 5)
            step = run.made[batch]
            assert step.whole is not None
            step.whole = None
            parts, _ = logits(llama, PROMPT[:batch], 5)
        assert run.steps == 10
        assert decoding.phase.sparse_tokens == 15 * batch
    # Rounding may move a number across a threshold: then one channel of one token differs.
    same(found, wanted)
    same(parts, wanted)
    dense, _ = logits(llama, PROMPT[:batch], 5)
    assert (dense - wanted).abs().max() > 1e-2


def test_linears_of_several_kinds_are_called_by_parts(llama):
    plan = {"layers.1.mlp.up_proj": Setting(0.5)}
    recipe = fit(llama, plan, calibrate(llama, [PROMPT]))
    with sparsified(llama, recipe):
        wanted, _ = logits(llama, PROMPT, 3)
        with fast(llama) as run:
            found, _ = logits(llama, PROMPT, 3)
        assert run.made[2].whole is None
    same(found, wanted)
