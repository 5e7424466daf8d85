"""Folders of tiny models, of families that keep their matrices in different ways."""

from functools import cache

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from bridge.methods.gptq import GPTQ
from bridge.methods.oats import OATS
from bridge.methods.wanda import Wanda

SIZES = dict(
    vocab_size=97, hidden_size=36, intermediate_size=52, num_hidden_layers=3,
    num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=64,
    pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
FAMILIES = {
    "llama": ("Llama", {"attention_bias": True, "tie_word_embeddings": True}),
    "gemma2": ("Gemma2", {"head_dim": 6, "sliding_window": 5, "query_pre_attn_scalar": 6}),
    "mixtral": ("Mixtral", {"num_local_experts": 3, "num_experts_per_tok": 2}),
    "gpt2": (
        "GPT2",
        {"n_embd": 36, "n_layer": 3, "n_head": 6, "n_positions": 64, "bos_token_id": 1},
    ),
}
METHODS = {"wanda": Wanda(), "oats": OATS(iterations=5), "gptq": GPTQ()}


def save(family: str, folder, **more):
    name, own = FAMILIES[family]
    sizes = {"vocab_size": 97} if family == "gpt2" else SIZES
    config = getattr(transformers, f"{name}Config")(**(sizes | own | more))
    torch.manual_seed(0)
    kind = "GPT2LMHeadModel" if family == "gpt2" else f"{name}ForCausalLM"
    model = getattr(transformers, kind)(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise, alpha=0.1 if parameter.dim() == 1 else 0.02)
    model.save_pretrained(folder, max_shard_size="60kB")
    words = {"a": 0, "<s>": 1} | {f"w{n}": n for n in range(2, 97)}
    core = Tokenizer(models.WordLevel(words, unk_token="a"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>").save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A family's folder by its name, made once."""
    return cache(lambda family: save(family, tmp_path_factory.mktemp(family)))


@pytest.fixture
def batches(generator):
    return [torch.randint(3, 97, (n, 17), generator=generator) for n in (2, 1, 3)]
