"""The packed form: read back bit for bit with our import, and not at all without it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bridge.checkpoint import content_hash, reread, save, verify
from bridge.compress import compress
from bridge.manifest import MANIFEST
from bridge.methods.a3 import A3
from bridge.methods.wanda import Wanda
from bridge.operators import LinearOperator, LowRank, Sparse
from bridge.sites import operators
from bridge.statistics import nothing
from bridge.toggle import without
from mech.digest import sha256
from mech.errors import BadInput


class Both:
    """A quick sparse plus low rank: of every matrix, its larger entries and a rank-3 rest."""

    statistic: ClassVar = nothing

    def __call__(self, weight, seen):
        sparse = torch.where(weight.abs() > weight.abs().median(), weight, 0)
        left, values, right = torch.linalg.svd((weight - sparse).float(), full_matrices=False)
        low = LowRank((left[:, :3] * values[:3]).to(weight), right[:3].to(weight))
        return Sparse(sparse) + low


def load(folder, **how):
    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, **how)


def logits(model, batches):
    with torch.no_grad():
        return model(batches[0]).logits


@pytest.fixture
def both(llama, batches):
    # Some linears, and some not: both kinds lie in one file.
    compress(llama, Both(), batches, select="layers.[02].*")
    return llama


@pytest.fixture
def folder(both, tmp_path) -> Path:
    return save(both, None, tmp_path / "model", {"seed": 3}, form="packed")


def unusual(family) -> Any:
    """Weights that are kept transposed (GPT-2), or stacked (the experts of a mixture)."""
    torch.manual_seed(0)
    if family == "gpt2":
        config: Any = transformers.GPT2Config(
            vocab_size=97,
            n_embd=36,
            n_layer=2,
            n_head=6,
            n_positions=64,
            bos_token_id=1,
            eos_token_id=2,
        )
        return transformers.GPT2LMHeadModel(config).eval()
    config = transformers.MixtralConfig(
        vocab_size=97, hidden_size=36, intermediate_size=52, num_hidden_layers=2,
        num_attention_heads=6, num_key_value_heads=2, num_local_experts=3, pad_token_id=0,
    )  # fmt: skip
    return transformers.MixtralForCausalLM(config).eval()


@pytest.fixture
def other(batches, tmp_path):
    """A model whose packed weights are those of experts alone."""
    model = unusual("mixtral")
    compress(model, Both(), batches, select="*.experts.*")
    return model, save(model, None, tmp_path / "other", {}, form="packed")


def test_saved_loaded_saved_again_and_run_is_equal_bit_for_bit(both, folder, batches, tmp_path):
    again = load(folder)
    assert list(operators(again)) == list(operators(both))
    assert content_hash(again) == content_hash(both)
    assert torch.equal(logits(again, batches), logits(both, batches))
    ours = save(again, None, tmp_path / "second", {"seed": 3}, form="packed")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {path.name: path.read_bytes() for path in ours.iterdir()} == files
    assert not again.training
    ids = batches[0][:1, :5]
    models: list[Any] = [both, again, load(ours)]
    told = [m.generate(ids, max_new_tokens=7, do_sample=False) for m in models]
    assert torch.equal(told[0], told[1])
    assert torch.equal(told[0], told[2])


def test_transformers_own_save_writes_the_packed_form_too(folder, batches, tmp_path):
    model = load(folder)
    model.save_pretrained(tmp_path / "theirs")
    assert not (tmp_path / "theirs" / MANIFEST).exists()
    theirs = load(tmp_path / "theirs")
    assert content_hash(theirs) == content_hash(model)
    assert sha256([tmp_path / "theirs" / "model.safetensors"]) == sha256(
        [folder / "model.safetensors"]
    )


def test_every_family(model, batches, tmp_path):
    compress(model, Both(), batches)
    again = load(save(model, None, tmp_path / "model", {}, form="packed"))
    assert content_hash(again) == content_hash(model)
    assert torch.equal(logits(again, batches), logits(model, batches))


@pytest.mark.parametrize("family", ["gpt2", "mixtral"])
@pytest.mark.parametrize("select", ["*", "layers.1.*"])
def test_transposed_weights_and_experts(family, select, batches, tmp_path):
    model = unusual(family)
    compress(model, Both(), batches, select=select)
    again = load(save(model, None, tmp_path / "model", {}, form="packed"))
    assert content_hash(again) == content_hash(model)
    assert torch.equal(logits(again, batches), logits(model, batches))
    again.save_pretrained(tmp_path / "theirs")
    assert content_hash(load(tmp_path / "theirs")) == content_hash(model)
    dense = load(save(model, None, tmp_path / "dense", {}))
    torch.testing.assert_close(logits(dense, batches), logits(model, batches), rtol=1e-4, atol=1e-4)
    assert reread(tmp_path / "dense")["layers"].keys() == operators(model).keys()


@pytest.mark.parametrize("family", ["gpt2", "mixtral"])
def test_made_dense_it_is_its_familys_own_again(family, batches, tmp_path):
    """Without that, transformers' own save writes names that are filled with random numbers."""
    model = unusual(family)
    compress(model, Both(), batches)
    again = load(save(model, None, tmp_path / "model", {}, form="packed")).dequantize()
    expected = logits(again, batches)
    again.save_pretrained(tmp_path / "theirs")
    assert torch.equal(logits(load(tmp_path / "theirs"), batches), expected)


@pytest.mark.parametrize("select", ["*", "layers.0.*"])
def test_experts_that_a_method_of_components_leaves_dense(select, batches, tmp_path):
    model = unusual("mixtral")
    done = compress(model, A3(), batches, select=select)
    assert "layers.0.mlp.experts" in done.left
    again = load(save(model, None, tmp_path / "model", {}, form="packed"))
    assert content_hash(again) == content_hash(model)
    assert torch.equal(logits(again, batches), logits(model, batches))


def test_half_precision_tied_heads_and_another_dtype(families, batches, tmp_path):
    gemma = families["gemma2"]().to(torch.bfloat16)
    compress(gemma, Both(), batches, select="*.mlp.*")
    folder = save(gemma, None, tmp_path / "model", {}, form="packed")
    again = load(folder)
    assert again.dtype == torch.bfloat16
    assert content_hash(again) == content_hash(gemma)
    assert again.lm_head.weight.data_ptr() == again.model.embed_tokens.weight.data_ptr()
    wide = load(folder, dtype=torch.float32)
    for name, operator in operators(wide).items():
        assert {t.dtype for t in operator.buffers()} == {torch.float32}
        narrow: Any = operators(gemma)[name]
        assert isinstance(operator, LinearOperator)
        assert torch.equal(operator.dense(), narrow.float().dense())


def test_terms_stay_terms_and_what_is_off_stays_off(both, batches, tmp_path):
    with without(both, LowRank):
        without_low_rank = logits(both, batches)
        again = load(save(both, None, tmp_path / "model", {}, form="packed"))
    assert torch.equal(logits(again, batches), without_low_rank)
    for operator in operators(again).values():
        for term in operator.modules():
            if isinstance(term, LowRank):
                term.active = True
    assert torch.equal(logits(again, batches), logits(both, batches))


def test_it_can_be_compressed_further_and_made_dense(folder, batches, tmp_path):
    model = load(folder)
    compress(model, Wanda(), batches, select="layers.1.*")
    again = load(save(model, None, tmp_path / "more", {}, form="packed"))
    assert torch.equal(logits(again, batches), logits(model, batches))
    dense = load(save(model, None, tmp_path / "dense", {}))
    torch.testing.assert_close(logits(dense, batches), logits(model, batches), rtol=1e-4, atol=1e-4)
    assert torch.equal(logits(again.dequantize(), batches), logits(dense, batches))


def test_the_file_holds_what_is_counted(both, folder):
    packed = load_file(folder / "model.safetensors")
    for name, operator in operators(both).items():
        inside = f"model.{name}."
        stored = {k.removeprefix(inside): t for k, t in packed.items() if k.startswith(inside)}
        assert stored["weight"].dim() == 1
        bits = 8 * sum(t.nbytes for t in stored.values())
        assert operator.bits() <= bits < operator.bits() + 8
    said = verify(folder)
    assert said["form"] == "packed"
    assert {n: entry["bits"] for n, entry in said["layers"].items()} == {
        n: operator.bits() for n, operator in operators(both).items()
    }


READ = """
import sys
from transformers import AutoModelForCausalLM

def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
"""
LATE = """
assert "bridge" not in sys.modules
for folder in sys.argv[1:]:
    try:
        load(folder)
    except RuntimeError as error:
        assert "mismatch" in str(error), error
    else:
        sys.exit(folder + " is loaded without the import")
import bridge
"""
FIRST = """
import importlib, sys
import bridge
assert not {"torch", "transformers"} & set(sys.modules)
importlib.reload(bridge)
"""
HASH = """
for folder in sys.argv[1:]:
    model = load(folder)
    from bridge.checkpoint import content_hash
    print(content_hash(model))
"""


@pytest.mark.parametrize("code", [READ + LATE + HASH, FIRST + READ + HASH], ids=["late", "first"])
def test_nothing_is_loaded_without_the_import_and_all_of_it_with(both, folder, other, code):
    """The import comes after transformers and loads that were refused, or before transformers."""
    model, stored = other
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(stored)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [content_hash(both), content_hash(model)]


def changed(folder: Path, how: str) -> str:
    """Damage a folder; what the refusal has to name."""
    weights, config = folder / "model.safetensors", folder / "config.json"
    if how == "flipped byte":
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 4
        weights.write_bytes(content)
        return r"model\.safetensors is not the file"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-9])
        return r"model\.safetensors"
    if how == "config":
        config.write_text(config.read_text().replace("low_rank", "high_rank"))
        return r"config\.json is not the file"
    if how == "missing manifest":
        (folder / MANIFEST).unlink()
        return r"has no manifest\.json"
    if how == "bad json":
        (folder / MANIFEST).write_text('{"files": {')
        return r"manifest\.json cannot be read"
    said = json.loads((folder / MANIFEST).read_text())
    said["files"] = dict.fromkeys([how], next(iter(said["files"].values())))
    (folder / MANIFEST).write_text(json.dumps(said))
    return "which is no file of its folder"


@pytest.mark.parametrize(
    "how",
    [
        "flipped byte", "truncated", "config", "missing manifest", "bad json",
        "../model/config.json", "/etc/hostname", "a/../../model/config.json",
    ],
)  # fmt: skip
def test_damage_is_refused_in_a_line(folder, how):
    message = changed(folder, how)
    with pytest.raises((BadInput, OSError), match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_a_shard_of_another_model_is_refused(both, batches, tmp_path):
    ours = save(both, None, tmp_path / "a", {}, form="packed", max_shard_size="40KB")
    assert load(ours).num_parameters() == both.num_parameters()
    with torch.no_grad():
        both.model.embed_tokens.weight.mul_(2)
    other = save(both, None, tmp_path / "b", {}, form="packed", max_shard_size="40KB")
    shards = sorted(path.name for path in ours.glob("model-*.safetensors"))
    assert len(shards) > 2
    wrong = next(s for s in shards if (ours / s).read_bytes() != (other / s).read_bytes())
    (ours / wrong).write_bytes((other / wrong).read_bytes())
    with pytest.raises(BadInput, match=f"{wrong} is not the file"):
        load(ours)


def rewritten(folder: Path, **changes) -> None:
    """A config.json that says otherwise, and a folder that does not claim a manifest."""
    (folder / MANIFEST).unlink()
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= {"manifest": False} | changes
    (folder / "config.json").write_text(json.dumps(config))


def test_weights_of_another_model_are_refused_without_a_manifest(folder):
    rewritten(folder)
    load(folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.2.mlp.up_proj.weight"][0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match="not those that were saved"):
        load(folder)
    weights.pop("model.layers.2.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match="not those that were saved"):
        load(folder)


def test_shapes_that_do_not_fit_are_refused(folder):
    linears = json.loads((folder / "config.json").read_text())["quantization_config"]["linears"]
    linears["layers.0.mlp.up_proj"]["parts"][1]["tensors"]["left"][1] = [52, 99]
    rewritten(folder, linears=linears)
    with pytest.raises((RuntimeError, BadInput), match=r"mismatch|not those"):
        load(folder)
    with pytest.raises(BadInput, match="not those that were saved"):
        load(folder, ignore_mismatched_sizes=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version 2: this package reads version 1"),
        ({"linears": {}}, "no packed linears"),
        ({"linears": {"layers.0.mlp.up_proj": {"kind": "x"}}}, "kind 'x'"),
        ({"linears": {"layers.0.mlp.up_proj": 3}}, "no packed linears"),
        ({"linears": {"layers.0.mlp.up_proj": {"kind": "sum", "tensors": 3}}}, "damaged"),
        ({"linears": {"layers.9.mlp": {"kind": "dense", "tensors": {"weight": ["float32", [1]]}}}},
         r"layers\.9\.mlp: .* no linear"),
        ({"more": 1}, "with more"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_is_refused(folder, changes, message):
    rewritten(folder, **changes)
    with pytest.raises(BadInput, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_a_model_without_operators_is_not_packed(llama, tmp_path):
    with pytest.raises(BadInput, match="no operators"):
        save(llama, None, tmp_path / "model", {}, form="packed")
    assert not list(tmp_path.iterdir())


def test_saving_leaves_no_mark_on_the_model(both, tmp_path):
    save(both, None, tmp_path / "model", {}, form="packed")
    assert "hf_quantizer" not in vars(both)
    assert not hasattr(both.config, "quantization_config")
    dense = save(both, None, tmp_path / "dense", {})
    assert "quantization_config" not in json.loads((dense / "config.json").read_text())
