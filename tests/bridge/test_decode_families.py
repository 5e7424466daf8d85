"""Sparse decoding in every family that is read, experts and transposed Conv1D included."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from bridge.decode.inputs import calibrate
from bridge.decode.plan import Setting
from bridge.decode.recipe import Recipe, fit
from bridge.decode.sparsified import sparsified
from bridge.manifest import content_hash
from bridge.sites import linears
from mech.errors import BadInput

_SPEC = importlib.util.spec_from_file_location(
    "families_of_linears", Path(__file__).with_name("test_families.py")
)
assert _SPEC is not None
assert _SPEC.loader is not None
_FILE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_FILE)


@pytest.fixture
def batches(generator):
    return [torch.randint(3, 97, (4, 21), generator=generator) for _ in range(2)]


def built(family: str, batches) -> tuple[Any, Recipe]:
    model: Any = _FILE.build(family)
    plan = dict.fromkeys(linears(model), Setting(0.4, 0.8, "column"))
    head = {"head": Setting(0.5)}
    return model, fit(model, plan | head, calibrate(model, batches, head=True))


@torch.no_grad()
@pytest.mark.parametrize("family", _FILE.FAMILIES)
def test_every_linear_is_gated_and_steps_equal_the_sequence(family, batches, tmp_path):
    model, recipe = built(family, batches)
    assert len(recipe.plan) == 2 * _FILE.FAMILIES[family][2] + 1
    before, logits = content_hash(model), model(batches[0], use_cache=False).logits
    types = [type(module) for module in model.modules()]
    recipe = Recipe.load(recipe.save(tmp_path / "recipe"))
    ids = batches[0][:2]
    with sparsified(model, recipe, sparse_from=0.0, layout="rows") as decoding:
        assert decoding.gated.keys() == recipe.plan.keys()
        assert set(decoding.backends.values()) == {"cpu"}
        said = model.generate(ids, max_new_tokens=5, do_sample=False, eos_token_id=None)
        whole = model(said[:, :-1], use_cache=False).logits
        assert not torch.equal(model(batches[0], use_cache=False).logits, logits)
    # Steps by kernels and one masked pass: the same tokens, greedily.
    assert torch.equal(whole[:, 20:].argmax(-1), said[:, 21:])
    assert content_hash(model) == before
    assert [type(module) for module in model.modules()] == types
    assert torch.equal(model(batches[0], use_cache=False).logits, logits)


def test_experts_do_not_know_where_their_tokens_stand(batches):
    model, recipe = built("Mixtral", batches)
    halves = sparsified(model, recipe, sparse_from=0.5)
    with pytest.raises(BadInput, match="experts do not know"), halves:
        pass
    alone = {name for name in recipe.plan if "experts" not in name}
    plan = {name: recipe.plan[name] for name in alone}
    inputs = calibrate(model, batches, head=True)
    with sparsified(model, fit(model, plan, inputs), sparse_from=0.5) as decoding:
        model(batches[0])
    assert decoding.tokens_sparse == 11 / 21


def test_tokens_cannot_be_left_out_of_experts(batches):
    model, _ = built("Mixtral", batches)
    exclude = [torch.zeros_like(ids, dtype=torch.bool) for ids in batches]
    with pytest.raises(BadInput, match="does not see all tokens"):
        calibrate(model, batches, exclude=exclude)
    inputs = calibrate(model, batches, select="*.self_attn.*", exclude=exclude)
    assert inputs.read


def test_a_transposed_weight_is_not_moved(batches):
    model, recipe = built("GPT2", batches)
    place = model.transformer.h[0].attn.c_attn.weight.data_ptr()
    with sparsified(model, recipe) as decoding:
        gated = decoding.gated["layers.0.attn.c_attn"]
        assert gated.rows is not None
        assert gated.rows.values.data_ptr() == place
    assert model.transformer.h[0].attn.c_attn.weight.data_ptr() == place
