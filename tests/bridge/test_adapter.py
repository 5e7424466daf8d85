"""base+lora: PEFT itself loads it, and computes what the operators compute."""

import json
from typing import Any, ClassVar

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

from bridge.adapter import parted, refuse_experts
from bridge.checkpoint import save, verify
from bridge.compress import compress
from bridge.methods.wanda import Wanda
from bridge.operators import Dense, LowRank, Sparse, Stack
from bridge.sites import linears, operators
from bridge.statistics import nothing
from bridge.toggle import without
from mech.errors import BadInput

# PEFT 0.21 reads a name that transformers 5.23 has given up.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


class Both:
    """A quick sparse plus low rank, whose rank is the smaller side over ten."""

    statistic: ClassVar = nothing

    def __call__(self, weight, seen):
        sparse = torch.where(weight.abs() > weight.abs().median(), weight, 0)
        left, values, right = torch.linalg.svd((weight - sparse).float(), full_matrices=False)
        rank = min(weight.shape) // 10
        low = LowRank((left[:, :rank] * values[:rank]).to(weight), right[:rank].to(weight))
        return Sparse(sparse) + low


def load(folder) -> Any:
    base = AutoModelForCausalLM.from_pretrained(folder / "base", local_files_only=True)
    return peft.PeftModel.from_pretrained(base, folder / "adapter", autocast_adapter_dtype=False)


def logits(model, batches):
    with torch.no_grad():
        return model(input_ids=batches[0]).logits


@pytest.mark.parametrize("family", ["qwen3", "mistral", "phi3"])
def test_peft_computes_what_the_operators_do(families, family, batches, tmp_path):
    """S x + B (A x) in both; B A with zeros behind is summed in another order."""
    model = families[family]()
    compress(model, Both(), batches)
    folder = save(model, None, tmp_path / "model", {"seed": 3}, form="base+lora")
    adapted = load(folder)
    torch.testing.assert_close(logits(adapted, batches), logits(model, batches))
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(
        logits(merged, batches), logits(model, batches), rtol=1e-4, atol=1e-4
    )
    ids = batches[0][:1, :5]
    told = [m.generate(input_ids=ids, max_new_tokens=7, do_sample=False) for m in (merged, model)]
    assert torch.equal(*told)


def test_of_one_rank_peft_computes_it_to_the_last_bit(families, batches, tmp_path):
    model = families["mistral"]()
    compress(model, Both(), batches, select="*.mlp.gate_proj")
    adapted = load(save(model, None, tmp_path / "model", {}, form="base+lora"))
    assert torch.equal(logits(adapted, batches), logits(model, batches))


def test_a_bias_is_the_bases(llama, batches, tmp_path):
    """PEFT adds it before the low-rank term, an operator after: the last bits differ."""
    compress(llama, Both(), batches, select="*.self_attn.*")
    adapted = load(save(llama, None, tmp_path / "model", {}, form="base+lora"))
    torch.testing.assert_close(logits(adapted, batches), logits(llama, batches))
    assert adapted.base_model.model.model.layers[1].self_attn.q_proj.base_layer.bias is not None


def test_half_precision_is_kept(families, batches, tmp_path):
    model = families["mistral"]().to(torch.bfloat16)
    compress(model, Both(), batches)
    adapted = load(save(model, None, tmp_path / "model", {}, form="base+lora"))
    low = adapted.base_model.model.model.layers[1].self_attn.q_proj.lora_A.default.weight
    assert low.dtype == torch.bfloat16
    # `.to` rounds the rotary frequencies too, loading does not: like is compared with like.
    packed = save(model, None, tmp_path / "packed", {}, form="packed")
    again = AutoModelForCausalLM.from_pretrained(packed, local_files_only=True)
    assert torch.equal(logits(adapted, batches), logits(again, batches))


def test_ranks_differ_and_targets_are_named(families, batches, tmp_path):
    model = families["qwen3"]()
    compress(model, Both(), batches, select="layers.[12].*")
    folder = save(model, None, tmp_path / "model", {}, form="base+lora")
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    # llama.cpp reads one alpha, divides it by each module's own rank, and knows no patterns.
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    ranks = {name: min(operator.shape) // 10 for name, operator in operators(model).items()}
    assert len(set(ranks.values())) > 1
    assert config["r"] == config["lora_alpha"] == max(ranks.values())
    stored = load_file(folder / "adapter" / "adapter_model.safetensors")
    for name, rank in ranks.items():
        path = f"base_model.model.model.{name}"
        a, b = (stored[f"{path}.lora_{which}.weight"] for which in "AB")
        assert len(a) == b.shape[1] == config["r"]
        assert a[:rank].any(1).all()
        assert b[:, :rank].any(0).all()
        assert not a[rank:].any()
        assert not b[:, rank:].any()
    assert set(config["target_modules"]) == {f"model.{name}" for name in operators(model)}
    torch.testing.assert_close(logits(load(folder), batches), logits(model, batches))


def test_the_base_alone_is_the_model_without_its_low_rank_terms(families, batches, tmp_path):
    model = families["mistral"]()
    compress(model, Both(), batches)
    folder = save(model, None, tmp_path / "model", {}, form="base+lora")
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(
        {name.rpartition(".")[2] for name in operators(model)}
    )
    base = AutoModelForCausalLM.from_pretrained(folder / "base", local_files_only=True)
    with without(model, LowRank):
        assert torch.equal(logits(base, batches), logits(model, batches))
        with pytest.raises(BadInput, match="no operator has a low-rank term"):
            save(model, None, tmp_path / "off", {}, form="base+lora")
    with pytest.raises(ValueError, match="Unrecognized model"):
        AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)


def test_a_method_without_low_rank_has_no_adapter(llama, batches, tmp_path):
    compress(llama, Wanda(), batches, select="*.q_proj")
    with pytest.raises(BadInput, match="no operator has a low-rank term"):
        save(llama, None, tmp_path / "model", {}, form="base+lora")
    assert not list(tmp_path.iterdir())


def a_mixture() -> Any:
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=97, hidden_size=36, intermediate_size=52, num_hidden_layers=2,
        num_attention_heads=6, num_key_value_heads=2, num_local_experts=3, pad_token_id=0,
    )  # fmt: skip
    return MixtralForCausalLM(config).eval()


def test_an_adapter_of_experts_is_refused(batches, tmp_path):
    """PEFT would load without it, and compute something else."""
    mixture = a_mixture()
    with pytest.raises(BadInput, match=r"layers\.0\.mlp\.experts\.0\.\w+: PEFT has no adapter"):
        refuse_experts(mixture, linears(mixture))  # before the work, and after it
    compress(mixture, Both(), batches)
    with pytest.raises(BadInput, match="PEFT has no adapter"):
        save(mixture, None, tmp_path / "model", {}, form="base+lora")
    assert not list(tmp_path.iterdir())


def test_a_mixtures_attention_is_an_adapter(batches, tmp_path):
    mixture = a_mixture()
    compress(mixture, Both(), batches, select="*.self_attn.*")
    adapted = load(save(mixture, None, tmp_path / "model", {}, form="base+lora"))
    torch.testing.assert_close(logits(adapted, batches), logits(mixture, batches))


def test_damage_to_the_adapter_is_found(families, batches, tmp_path):
    model = families["mistral"]()
    compress(model, Both(), batches, select="layers.0.*")
    folder = save(model, None, tmp_path / "model", {}, form="base+lora")
    assert verify(folder)["form"] == "base+lora"
    file = folder / "adapter" / "adapter_model.safetensors"
    weights = load_file(file)
    next(iter(weights.values()))[0, 0] += 1
    save_file(weights, file)
    with pytest.raises(BadInput, match=r"adapter_model\.safetensors is not the file"):
        verify(folder)


def test_parts_add_up_whatever_the_operator(generator):
    def low(d_out, rank):
        return LowRank(
            torch.randn(d_out, rank, generator=generator),
            torch.randn(rank, 5, generator=generator),
        )

    def dense(d_out):
        return Dense(torch.randn(d_out, 5, generator=generator))

    off = low(4, 2)
    off.active = False
    for operator in (
        low(4, 2),
        dense(4),
        dense(4) + low(4, 1) + off,
        Stack([dense(4) + low(4, 1), low(3, 2), dense(2)]),
    ):
        rest, left, right = parted(operator)
        torch.testing.assert_close(rest + left @ right, operator.dense())
