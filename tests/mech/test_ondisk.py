"""A model on disk is the model in memory, bit for bit, and takes nothing and leaves nothing."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bridge.evaluate import token_losses
from mech.blocks import decoder_blocks
from mech.capture import capture_blocks
from mech.causal import intervene
from mech.edits import RandomDirection
from mech.errors import BadInput
from mech.heads import head_weights
from mech.ondisk import model_on_disk, resident
from mech.quiet import quiet
from mech.reach import Where

CPU = torch.device("cpu")


def saved(model, folder, **settings):
    """Biases and gains differ from their start, so that one that is left out is missed."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += torch.rand(parameter.shape, generator=generator) - 0.3
    with quiet():
        model.save_pretrained(folder, **settings)
    return folder


def on_disk(folder, dtype=torch.float32):
    return model_on_disk(folder, sorted(folder.glob("*.safetensors")), dtype, CPU)


def in_memory(folder, dtype=torch.float32):
    with quiet():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


@torch.no_grad()
def logits(model, tokens):
    return model(tokens, use_cache=False).logits


def away(model):
    """Whether no weight of the model is in memory."""
    return all(parameter.is_meta for parameter in model.parameters())


@pytest.fixture
def folder(llama, tmp_path):
    return saved(llama, tmp_path / "llama")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_logits_are_those_in_memory(tiny, tokens, tmp_path, dtype):
    folder = saved(tiny.model.bfloat16(), tmp_path, max_shard_size="30KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    model, expected = on_disk(folder, dtype), in_memory(folder, dtype)
    assert torch.equal(logits(model, tokens), logits(expected, tokens))
    assert away(model)
    assert model.dtype == dtype
    assert model.device == model.base_model.device == CPU


def test_what_is_computed_and_not_stored_is_there(tiny, tmp_path):
    folder = saved(tiny.model, tmp_path)
    buffers, expected = (dict(m.named_buffers()) for m in (on_disk(folder), in_memory(folder)))
    assert buffers.keys() == expected.keys()
    for name, buffer in expected.items():
        assert torch.equal(buffers[name], buffer), name


def test_capture_is_unchanged(tiny, tokens, tmp_path):
    folder = saved(tiny.model, tmp_path)

    def read(block):
        return block.resid_pre, block.resid_post, block.received, block.z

    found, expected = (
        capture_blocks(model, tokens, read) for model in (on_disk(folder), in_memory(folder))
    )
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["Mixtral", "Qwen2Moe"])
def test_experts_are_merged_as_they_are_read(kind, tokens, tmp_path):
    """Their files hold a matrix for every expert; the module has one tensor for all."""
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=97, hidden_size=48, intermediate_size=56, num_hidden_layers=3,
        num_attention_heads=6, num_key_value_heads=2, num_local_experts=4, num_experts=4,
        moe_intermediate_size=24, shared_expert_intermediate_size=24, initializer_range=0.4,
    )  # fmt: skip
    torch.manual_seed(0)
    folder = saved(getattr(transformers, f"{kind}ForCausalLM")(config), tmp_path)
    names = load_file(next(folder.glob("*.safetensors")))
    assert any("experts.3." in name for name in names)
    assert torch.equal(logits(on_disk(folder), tokens), logits(in_memory(folder), tokens))


@pytest.mark.parametrize("tiny", ["gpt2", "llama", "gpt_neox"], indirect=True)
def test_files_of_the_model_without_its_head_name_things_otherwise(tiny, tokens, tmp_path):
    """As OpenAI's GPT-2 on the hub: no `transformer.` before the names, and the head is tied."""
    folder = saved(tiny.model, tmp_path)
    file = folder / "model.safetensors"
    prefix = f"{tiny.model.base_model_prefix}."
    bare = {name.removeprefix(prefix): weight for name, weight in load_file(file).items()}
    save_file(bare, file, metadata={"format": "pt"})
    assert torch.equal(logits(on_disk(folder), tokens), logits(in_memory(folder), tokens))


def test_settings_of_generation_are_the_folders_own(folder):
    file = folder / "generation_config.json"
    file.write_text('{"temperature": 0.31, "do_sample": true, "eos_token_id": 5}')
    assert on_disk(folder).generation_config.to_diff_dict() == (
        in_memory(folder).generation_config.to_diff_dict()
    )
    assert on_disk(folder).generation_config.temperature == 0.31
    file.write_text("{")
    with pytest.raises(BadInput, match=r"generation_config\.json cannot be read") as told:
        on_disk(folder)
    assert "\n" not in str(told.value)


def test_the_heads_can_be_asked_for(folder):
    model, expected = on_disk(folder), head_weights(in_memory(folder), 1)
    np.testing.assert_array_equal(head_weights(model, 1).W_K, expected.W_K)
    assert away(model)


def test_interventions_and_losses_are_those_in_memory(folder, tokens):
    """An edit in the metric of W_O asks for a block's weights while that block runs."""
    found = []
    for model in (on_disk(folder), in_memory(folder)):
        with intervene(model, RandomDirection(Where((0, 2), sinks=((0,),)))) as changed:
            found.append(token_losses(changed, tokens.flatten(), context=13, stride=7).nll)
        found.append(token_losses(model, tokens.flatten(), context=13, stride=7).nll)
    edited_on_disk, on_disk_plain, edited_in_memory, in_memory_plain = found
    assert torch.equal(edited_on_disk, edited_in_memory)
    assert torch.equal(on_disk_plain, in_memory_plain)
    assert not torch.equal(edited_on_disk, on_disk_plain)


class Watched:
    """What of the model is in memory, seen from inside its forward pass."""

    def __init__(self, model):
        self.blocks, self.most = decoder_blocks(model), 0
        for block in self.blocks:
            block.get_submodule("mlp").register_forward_hook(self.look)

    def look(self, *_):
        self.most = max(self.most, sum(not away(block) for block in self.blocks))


def test_one_block_is_in_memory_at_a_time(folder, tokens):
    model = on_disk(folder)
    seen = Watched(model)
    logits(model, tokens)
    assert seen.most == 1


def test_only_the_rows_of_the_tokens_are_read(folder, tokens):
    model = on_disk(folder)
    sizes = []
    embedding = model.get_input_embeddings()
    embedding.register_forward_pre_hook(
        lambda module, _: sizes.append(module.get_parameter("weight").shape[0])
    )
    found = logits(model, tokens[:, :5])
    assert sizes == [len(tokens[:, :5].unique())]
    assert torch.equal(found, logits(in_memory(folder), tokens[:, :5]))


def test_an_id_past_the_embedding_is_not_read_from_the_next_tensor(folder, tokens):
    tokens[0, 0] = 97
    with pytest.raises(IndexError, match="row 97"):
        logits(on_disk(folder), tokens)


def test_an_error_inside_leaves_nothing_behind(folder, tokens):
    model = on_disk(folder)
    handle = decoder_blocks(model)[1].get_submodule("mlp").register_forward_hook(lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        logits(model, tokens)
    assert away(model)
    handle.remove()
    assert torch.equal(logits(model, tokens), logits(in_memory(folder), tokens))


def test_resident_may_be_nested(folder, tokens):
    model = on_disk(folder)
    block = decoder_blocks(model)[0]
    with resident(block):
        with resident(block):
            pass
        logits(model, tokens)
        assert not away(block)
    assert away(model)


def test_a_model_in_memory_is_resident(llama):
    with resident(decoder_blocks(llama)[0]):
        assert not away(llama)


def test_nothing_is_written_to_the_folder(folder, tokens):
    def state():
        return {
            path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
            for path in Path(folder).rglob("*")
        }

    before = state()
    folder.chmod(0o500)
    logits(on_disk(folder), tokens)
    folder.chmod(0o700)
    assert state() == before


def edited(folder, **weights):
    file = folder / "model.safetensors"
    save_file(load_file(file) | weights, file, metadata={"format": "pt"})
    return file


def refused(folder, tokens, dtype=torch.float32):
    """The message of a refusal, which is one line."""
    with pytest.raises(BadInput) as caught:
        logits(on_disk(folder, dtype), tokens)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_a_weight_that_is_not_finite_names_file_and_block(folder, tokens, bad):
    name = "model.layers.1.mlp.up_proj.weight"
    weight = load_file(folder / "model.safetensors")[name]
    weight[3, 4] = bad
    file = edited(folder, **{name: weight})
    assert f"{name} (block 1) in {file} holds NaN or inf" in refused(folder, tokens)


def test_an_embedding_that_is_not_finite(folder, tokens):
    name = "model.embed_tokens.weight"
    weight = load_file(folder / "model.safetensors")[name]
    weight[tokens[1, 3], 4] = float("nan")
    edited(folder, **{name: weight})
    assert f"{name} (outside the blocks)" in refused(folder, tokens)


def test_a_weight_too_large_for_the_dtype(folder, tokens):
    name = "model.layers.2.mlp.up_proj.weight"
    weight = load_file(folder / "model.safetensors")[name]
    weight[3, 4] = 1e6
    edited(folder, **{name: weight})
    message = refused(folder, tokens, torch.float16)
    assert f"{name} (block 2)" in message
    assert "float16" in message


def test_a_missing_weight(folder, tokens):
    file = folder / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.2.self_attn.q_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    message = refused(folder, tokens)
    assert "lacks 1 weights" in message
    assert "model.layers.2.self_attn.q_proj.weight (block 2)" in message


def test_a_weight_of_another_shape(folder, tokens):
    edited(folder, **{"model.layers.0.self_attn.q_proj.weight": torch.ones(3, 5)})
    assert str(folder) in refused(folder, tokens)


@pytest.mark.parametrize("left", [0, 4, 200, -1])
def test_a_truncated_file(folder, tokens, left):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    assert f"{file} is damaged" in refused(folder, tokens)


def test_a_file_that_is_cut_while_the_model_is_in_use(folder, tokens):
    model = on_disk(folder)
    file = folder / "model.safetensors"
    logits(model, tokens)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BadInput, match="the file changed since the model was loaded") as caught:
        logits(model, tokens)
    assert str(file) in str(caught.value)
    assert away(model)


def test_quantised_weights(folder, tokens):
    config = (folder / "config.json").read_text()
    quantised = '"quantization_config": {"quant_method": "mxfp4"}, "model_type"'
    (folder / "config.json").write_text(config.replace('"model_type"', quantised))
    assert "quantised" in refused(folder, tokens)


def test_a_packed_dtype(folder, tokens):
    edited(folder, scale=torch.ones(3).to(torch.float8_e4m3fn))
    assert "scale" in refused(folder, tokens)
