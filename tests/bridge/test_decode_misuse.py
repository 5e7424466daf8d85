"""A model that decodes sparsely, treated as users treat models."""

import copy
import re
import sys

import pytest
import torch

from bridge.decode.gated import Gated
from bridge.decode.inputs import calibrate
from bridge.decode.plan import Setting
from bridge.decode.recipe import Recipe, fit
from bridge.decode.sparsified import sparsified
from bridge.manifest import content_hash
from bridge.sites import linears
from ctr_kernels.sparse_gemv.pack import int8_rows
from mech.errors import BadInput

NAME = "layers.1.mlp.up_proj"


@pytest.fixture
def recipe(llama, batches) -> Recipe:
    plan = dict.fromkeys([*linears(llama), "head"], Setting(0.5))
    return fit(llama, plan, calibrate(llama, batches, head=True))


def part(recipe: Recipe, names: list[str]) -> Recipe:
    cut = {
        what: {name: getattr(recipe, what)[name] for name in names}
        for what in ("plan", "thresholds", "likeness")
    }
    return Recipe(**{**vars(recipe), **cut})


def test_gated_linears_are_not_gated_again(llama, recipe):
    before = content_hash(llama)
    for name in ("layers.0.self_attn.q_proj", "head"):
        own = part(recipe, [name])
        with sparsified(llama, own):
            said = f"{re.escape(name)} is gated already"
            with pytest.raises(BadInput, match=said), sparsified(llama, own):
                pass
            assert any(isinstance(module, Gated) for module in llama.modules())
    assert content_hash(llama) == before


def test_linears_of_two_recipes_are_gated_as_of_one(llama, recipe, batches):
    names = list(recipe.plan)
    logits = []
    with torch.no_grad():
        with sparsified(llama, recipe, sparse_from=0.0):
            logits.append(llama(batches[0]).logits)
        one, other = part(recipe, names[::2]), part(recipe, names[1::2])
        with sparsified(llama, one, sparse_from=0.0), sparsified(llama, other, sparse_from=0.0):
            logits.append(llama(batches[0]).logits)
    assert torch.equal(*logits)


def test_a_copy_decodes_by_itself(llama, recipe, batches):
    """Its prompts are its own, and its steps read its own weights, after the model is back, too."""
    ids, step = batches[0][:, :7], batches[0][:1, :1]
    with torch.no_grad():
        with sparsified(llama, recipe):
            twin = copy.deepcopy(llama)
            prompt, last = llama(ids).logits, llama(step).logits
            assert torch.equal(twin(ids).logits, prompt)
            assert torch.equal(twin(step).logits, last)
        assert torch.equal(twin(step).logits, last)
        twin.get_submodule("model.layers.1.mlp.up_proj").weight.zero_()
        assert not torch.equal(twin(step).logits, last)


def test_another_format_inside_does_not_move_masks(llama, recipe):
    with sparsified(llama, recipe):
        llama.to(torch.bfloat16)
        gated = [module for module in llama.modules() if isinstance(module, Gated)]
        assert {module.threshold.dtype for module in gated} == {torch.float32}
        assert {module.weight.dtype for module in gated} == {torch.bfloat16}


def test_inference_mode_leaves_a_model_that_can_be_trained(llama, recipe, batches):
    with torch.inference_mode(), sparsified(llama, recipe):
        llama(batches[0])
    stream = llama.get_input_embeddings()(batches[0]).detach().requires_grad_()
    llama(inputs_embeds=stream).logits.sum().backward()
    assert float(stream.grad.abs().sum()) > 0


def test_a_step_gives_weights_their_gradient(llama, recipe, batches):
    weight = llama.get_submodule("model.layers.1.mlp.up_proj").weight
    llama.requires_grad_(False)
    weight.requires_grad_(True)
    with sparsified(llama, recipe):
        llama(batches[0][:, :1]).logits.sum().backward()
    assert float(weight.grad.abs().sum()) > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rows": {"layers.9.x": int8_rows(torch.ones(2, 2))}}, "rows of layers.9.x"),
        ({"rows": {NAME: int8_rows(torch.ones(3, 36))}}, f"rows of {NAME} are 3 x 36"),
        ({"sparse_from": float("nan")}, "sparse_from nan"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_the_model(llama, recipe, options, said):
    before = content_hash(llama)
    with pytest.raises(BadInput, match=re.escape(said)), sparsified(llama, recipe, **options):
        pass
    assert not any(isinstance(module, Gated) for module in llama.modules())
    assert content_hash(llama) == before


def test_without_the_compiler_the_definition_runs_and_says_so(llama, recipe, batches, monkeypatch):
    """As where numba is not installed."""
    logits = []
    with torch.no_grad():
        with sparsified(llama, recipe) as decoding:
            logits.append(llama(batches[0][:, :1]).logits)
            assert set(decoding.backends.values()) == {"cpu"}
        for name in ("cpu", "cpu_float", "cpu_codes", "bound"):
            monkeypatch.delitem(sys.modules, f"ctr_kernels.sparse_gemv.{name}", raising=False)
        monkeypatch.setitem(sys.modules, "numba", None)
        with sparsified(llama, recipe) as decoding:
            logits.append(llama(batches[0][:, :1]).logits)
            assert set(decoding.backends.values()) == {"reference"}
            assert all("numba" in reason for reason in decoding.reasons.values())
    torch.testing.assert_close(*logits)
