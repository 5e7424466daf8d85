"""Tiny random models of every family that is read, and the demo model, loaded once."""

from typing import NamedTuple

import pytest
import torch
import transformers

from mech.load import Loaded, load
from mech.source import DEMO

D_VOCAB = 97

# Large initial weights, so that attention is far from uniform and the soft cap bites.
COMMON = {
    "vocab_size": D_VOCAB,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "initializer_range": 0.4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

GPT2 = {
    "vocab_size": D_VOCAB,
    "n_embd": 48,
    "n_layer": 3,
    "n_head": 6,
    "n_positions": 64,
    "initializer_range": 0.4,
}

# family -> (model class, configuration class, what differs, name of the output projection)
FAMILIES = {
    "llama": ("Llama", {}, "o_proj"),
    "qwen2": ("Qwen2", {}, "o_proj"),
    "qwen3": ("Qwen3", {"head_dim": 12}, "o_proj"),
    "mistral": ("Mistral", {"sliding_window": 8}, "o_proj"),
    "gemma2": (
        "Gemma2",
        {
            "head_dim": 12,
            "sliding_window": 8,
            "attn_logit_softcapping": 2.0,
            "query_pre_attn_scalar": 5,
        },
        "o_proj",
    ),
    "gemma3": (
        "Gemma3Text",
        {"head_dim": 12, "sliding_window": 8, "query_pre_attn_scalar": 5},
        "o_proj",
    ),
    "phi3": ("Phi3", {}, "o_proj"),
    "gpt_neox": ("GPTNeoX", {}, "dense"),
    "opt": ("OPT", {"ffn_dim": 56, "word_embed_proj_dim": 48, "init_std": 0.4}, "out_proj"),
    "gpt2": ("GPT2", GPT2, "c_proj"),
    "gpt_oss": (
        "GptOss",
        {
            "head_dim": 12,
            "sliding_window": 8,
            "num_local_experts": 3,
            "num_experts_per_tok": 2,
            "max_position_embeddings": 8192,  # its rotary scaling is made for 4,096 and more
        },
        "o_proj",
    ),
    "olmo2": ("Olmo2", {}, "o_proj"),
}


class Tiny(NamedTuple):
    family: str
    model: transformers.PreTrainedModel
    out: str


def build(family: str) -> transformers.PreTrainedModel:
    name, differing, _ = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")
    kind = "Gemma3" if family == "gemma3" else name
    suffix = "LMHeadModel" if family == "gpt2" else "ForCausalLM"
    torch.manual_seed(0)
    settings = differing if family == "gpt2" else COMMON | differing
    return getattr(transformers, kind + suffix)(config(**settings)).eval()


@pytest.fixture(params=FAMILIES)
def tiny(request) -> Tiny:
    return Tiny(request.param, build(request.param), FAMILIES[request.param][2])


@pytest.fixture
def llama() -> transformers.PreTrainedModel:
    return build("llama")


@pytest.fixture
def tokens(generator):
    return torch.randint(0, D_VOCAB, (2, 21), generator=generator)


@pytest.fixture(scope="session")
def demo() -> Loaded:
    try:
        return load("smollm2")
    except ValueError as error:
        if "not installed" in str(error):
            pytest.skip(f"{error} ({DEMO['smollm2'][1]})")
        raise
