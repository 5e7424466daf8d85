"""A weight that is edited is edited, wherever it lives; what cannot be is refused in a line."""

import hashlib

import pytest
import torch
import transformers
from torch import nn

from bridge.compress import compress
from bridge.edit import edit_weight
from bridge.fold import folded
from bridge.methods.wanda import Wanda
from mech.errors import BadInput
from mech.ondisk import model_on_disk
from mech.quiet import quiet

NAME = "model.layers.1.mlp.up_proj.weight"
CPU = torch.device("cpu")


@pytest.fixture
def folder(llama, tmp_path):
    with quiet():
        llama.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@torch.no_grad()
def logits(model, batches):
    return model(batches[0], use_cache=False).logits


def on_disk(folder):
    return model_on_disk(folder, sorted(folder.glob("*.safetensors")), torch.float32, CPU)


def off_loaded(folder, kind, scratch):
    """accelerate's: weights in memory elsewhere, or in files."""
    accelerate = pytest.importorskip("accelerate")
    with quiet():
        model = transformers.LlamaForCausalLM.from_pretrained(folder)
        if kind == "memory":
            return accelerate.cpu_offload(model, execution_device=CPU)
        return accelerate.disk_offload(model, scratch / "offload", execution_device=CPU)


def model_of(kind, llama, folder, tmp_path):
    if kind == "plain":
        return llama
    return on_disk(folder) if kind == "ours" else off_loaded(folder, kind, tmp_path)


def bytes_of(folder):
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


KINDS = ["plain", "ours", "memory", "files"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_compressed_weights_of_memory_are_those_off_loaded(
    kind, llama, folder, batches, tmp_path
):
    """Every linear becomes what Wanda made of it in memory: the logits are the same bits."""
    model = model_of(kind, llama, folder, tmp_path)
    with quiet():
        reference = transformers.LlamaForCausalLM.from_pretrained(folder)
    compress(reference, Wanda(), batches)
    matrices = {name: linear.weight for name, linear in folded(reference).items()}
    dense, files = logits(model, batches), bytes_of(folder)
    for name, weight in matrices.items():
        edit_weight(model, f"model.{name}.weight", weight, folder=tmp_path / "edits")
    found = logits(model, batches)
    assert not torch.equal(found, dense)
    with quiet():
        expected = transformers.LlamaForCausalLM.from_pretrained(folder)
    for name, weight in matrices.items():
        expected.get_submodule(f"model.{name}").weight = nn.Parameter(weight)
    assert torch.equal(found, logits(expected, batches))
    assert bytes_of(folder) == files
    assert (tmp_path / "edits").exists() == (kind in ("ours", "files"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_is_refused(kind, llama, folder, batches, tmp_path):
    model = model_of(kind, llama, folder, tmp_path)
    before, weight = logits(model, batches), torch.zeros(52, 36)
    wrong = {
        "model.layers.1.mlp.upproj.weight": (weight, "no weight is called"),
        "model.layers.1.mlp.down_proj.weight": (weight, r"is \(36, 52\): not \(52, 36\)"),
        NAME: (weight / 0, "not finite"),
    }
    for name, (value, message) in wrong.items():
        with pytest.raises(BadInput, match=message) as caught:
            edit_weight(model, name, value, folder=tmp_path / "edits")
        assert "\n" not in str(caught.value)
    if kind in ("ours", "files"):
        with pytest.raises(BadInput, match="say with `folder`"):
            edit_weight(model, NAME, weight)
    assert torch.equal(logits(model, batches), before)


def test_a_write_to_an_off_loaded_weight_is_the_trap_that_this_avoids(folder, batches):
    model = on_disk(folder)
    before = logits(model, batches)
    with torch.no_grad():
        model.get_parameter(NAME).zero_()
    assert torch.equal(logits(model, batches), before)


def test_numbers_that_nobody_holds_are_refused(llama):
    llama.to("meta")
    with pytest.raises(BadInput, match="nothing holds its numbers"):
        edit_weight(llama, NAME, torch.zeros(52, 36))


def test_a_tied_weight_is_refused(families, tmp_path):
    gemma = families["gemma2"]()
    head = torch.zeros_like(gemma.lm_head.weight)
    with pytest.raises(BadInput, match=r"tied to model\.embed_tokens\.weight|tied to lm_head"):
        edit_weight(gemma, "lm_head.weight", head)
    with quiet():
        gemma.save_pretrained(tmp_path)
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        with pytest.raises(BadInput, match="is tied to"):
            edit_weight(on_disk(tmp_path), name, head, folder=tmp_path / "edits")


def test_experts_that_are_merged_as_they_are_read_are_refused(tmp_path):
    config = transformers.MixtralConfig(
        vocab_size=97, hidden_size=36, intermediate_size=52, num_hidden_layers=1,
        num_attention_heads=6, num_key_value_heads=2, num_local_experts=3,
    )  # fmt: skip
    with quiet():
        transformers.MixtralForCausalLM(config).save_pretrained(tmp_path)
    model = on_disk(tmp_path)
    name = "model.layers.0.mlp.experts.down_proj"
    shape = model.get_parameter(name).shape
    with pytest.raises(BadInput, match="made of 3 tensors"):
        edit_weight(model, name, torch.zeros(shape), folder=tmp_path / "edits")


def test_a_weight_in_half_precision_is_what_it_can_be(llama):
    llama.half()
    edit_weight(llama, NAME, torch.full((52, 36), 1 / 3))
    assert llama.get_parameter(NAME)[3, 4].item() == torch.tensor(1 / 3).half().item()
    with pytest.raises(BadInput, match=r"not finite in torch\.float16"):
        edit_weight(llama, NAME, torch.full((52, 36), 1e6))
