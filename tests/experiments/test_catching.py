"""Of a prompt: its tokens as a reader would write them, and single heads taken out of a call."""

import numpy as np
import pytest
import torch
from transformers import GptOssConfig, GptOssForCausalLM

from experiments import catching
from experiments.catching import shown
from mech.attention import pattern_rows
from mech.capture import capture, capture_blocks
from mech.load import load


@pytest.mark.model
def test_bytes_are_decoded():
    """SmolLM2's tokenizer works on bytes: a space is Ġ to it, and é is Ã©."""
    tokenizer = load("smollm2").tokenizer
    ids = tokenizer("The café is open.\n").input_ids
    words = shown(tokenizer, ids)
    assert len(words) == len(ids)
    assert "".join(words) == "The café is open.\n"
    assert " is" in words


def test_heads_taken_out_of_a_call_attend_as_they_did():
    """Grouped queries, a window and learned sinks: whatever belongs to a head goes with it."""
    torch.manual_seed(0)
    config = GptOssConfig(
        hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, head_dim=8, vocab_size=31, sliding_window=9, num_local_experts=2,
        num_experts_per_tok=1, initializer_range=0.4,
    )  # fmt: skip
    model, ids = GptOssForCausalLM(config).eval(), torch.arange(30)[None]
    heads = capture_blocks(model, ids, lambda block: block.heads)
    pattern = capture(model, ids).pattern
    for layer, call in enumerate(heads):
        assert call.sink is not None
        found = pattern_rows(catching._only(call, [4, 1]), np.arange(30))
        np.testing.assert_allclose(found, pattern[layer][:, [4, 1]], atol=1e-6)
