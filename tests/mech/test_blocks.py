import pytest
import torch
from torch import nn

from mech.blocks import decoder_blocks, unwrap
from mech.errors import BadInput


def test_blocks_of_every_family(tiny):
    blocks = decoder_blocks(tiny.model)
    assert len(blocks) == 3
    assert {type(b).__name__ for b in blocks} <= {
        "LlamaDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer", "MistralDecoderLayer",
        "Gemma2DecoderLayer", "Gemma3DecoderLayer", "Phi3DecoderLayer", "GPTNeoXLayer",
        "OPTDecoderLayer", "GPT2Block", "GptOssDecoderLayer", "Olmo2DecoderLayer",
    }  # fmt: skip


def test_experts_are_not_blocks():
    """More experts than blocks, in a list of their own inside each block."""
    block = nn.Module()
    block.experts = nn.ModuleList(nn.Linear(2, 2) for _ in range(8))
    model = nn.Module()
    model.layers = nn.ModuleList([block, block])
    assert decoder_blocks(model) is model.layers


def test_the_longest_list_without_a_configuration():
    model = nn.Module()
    model.norms = nn.ModuleList(nn.LayerNorm(2) for _ in range(2))
    model.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    assert decoder_blocks(model) is model.layers


def test_the_configured_number_wins(llama):
    llama.adapters = nn.ModuleList(nn.Linear(2, 2) for _ in range(7))
    assert decoder_blocks(llama) is llama.model.layers


def test_none_and_two_are_refused():
    with pytest.raises(BadInput, match="no list of decoder blocks"):
        decoder_blocks(nn.Linear(2, 2))
    model = nn.Module()
    model.a = nn.ModuleList([nn.Linear(2, 2)])
    model.b = nn.ModuleList([nn.LayerNorm(2)])
    with pytest.raises(BadInput, match="1 × Linear, 1 × LayerNorm"):
        decoder_blocks(model)


def test_unwrap_never_takes_a_sequence_of_the_batch():
    x = torch.zeros(2, 3, 4)
    assert unwrap(x) is x
    assert unwrap((x, None)) is x
