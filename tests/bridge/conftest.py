"""Tiny random models of six families; odd sizes wherever a family allows them."""

import pytest
import torch
import transformers

SIZES = {
    "vocab_size": 97,
    "hidden_size": 36,
    "intermediate_size": 52,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _model(family: str, **more):
    sizes = dict(SIZES)
    if family == "GPTNeoX":
        sizes.pop("num_key_value_heads")
    config = getattr(transformers, f"{family}Config")(**(sizes | more))
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    # Fresh models have norms of ones and biases of zero, which would hide a lost one.
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise, alpha=0.1 if parameter.dim() == 1 else 0.02)
    return model


FAMILIES = {
    "llama": lambda: _model("Llama", attention_bias=True),
    "qwen3": lambda: _model("Qwen3", head_dim=10),
    "mistral": lambda: _model("Mistral", sliding_window=5),
    "gemma2": lambda: _model("Gemma2", head_dim=6, sliding_window=5, query_pre_attn_scalar=6),
    "phi3": lambda: _model("Phi3"),
    "gptneox": lambda: _model("GPTNeoX"),
}


@pytest.fixture
def families():
    return FAMILIES


@pytest.fixture
def llama():
    return FAMILIES["llama"]()


@pytest.fixture(params=FAMILIES)
def model(request):
    return FAMILIES[request.param]()


@pytest.fixture
def batches(generator):
    return [torch.randint(3, 97, (n, 17), generator=generator) for n in (2, 1, 2)]
