"""More families than those of `conftest`: chunks, serial blocks, experts, latent heads."""

import numpy as np
import pytest
import torch
import transformers

from mech.capture import capture, capture_blocks

SHAPE = {
    "vocab_size": 97, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_key_value_heads": 2, "initializer_range": 0.4,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MLA = {
    "num_key_value_heads": 6, "kv_lora_rank": 16, "q_lora_rank": 24, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8, "v_head_dim": 10, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 24, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1,
}  # fmt: skip
CHUNKED = {
    "head_dim": 8, "attention_chunk_size": 8, "num_local_experts": 3, "num_experts_per_tok": 1,
    "intermediate_size_mlp": 56,
    "layer_types": ["chunked_attention", "chunked_attention", "full_attention"],
}  # fmt: skip
# name -> (what differs, whether its writes add up: Granite scales them on their way)
MORE = {
    "Llama4": (CHUNKED, True),
    "GPTNeoX": ({"use_parallel_residual": False, "num_key_value_heads": 6}, True),
    "Cohere": ({}, True),
    "Granite": ({"residual_multiplier": 0.22, "attention_multiplier": 0.3}, False),
    "Mixtral": ({"num_local_experts": 3, "num_experts_per_tok": 2}, True),
    "DeepseekV3": (MLA, True),
}


@pytest.mark.parametrize("family", MORE)
def test_is_eager_in_float64(family, generator, monkeypatch, measured):
    softmax = torch.nn.functional.softmax
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim))
    differing, adds_up = MORE[family]
    torch.manual_seed(0)
    suffix = "TextConfig" if family == "Llama4" else "Config"
    config = getattr(transformers, family + suffix)(**SHAPE | differing)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval().double()
    if family in ("Mixtral", "DeepseekV3"):
        model.set_experts_implementation("eager")  # the grouped products know no float64
    tokens = torch.randint(3, 97, (2, 21), generator=generator)
    mask = torch.ones_like(tokens)
    mask[1, :5] = 0
    blocks = capture_blocks(model, tokens, lambda block: block, mask)
    found = capture(model, tokens, mask).pattern
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model.base_model(
            tokens,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
            output_attentions=True,
        ).attentions
    true = torch.stack(expected).numpy() * mask.numpy()[:, None, :, None]
    worst = float(np.abs(found - true).max())
    measured(f"pattern against eager float64, tiny {family}", worst, "1e-5")
    assert worst < 1e-11
    for block, pattern in zip(blocks, true, strict=True):
        np.testing.assert_allclose(block.received, pattern.sum(axis=2), atol=1e-10)
        assert (block.attn_write is not None) == adds_up
    if family == "Llama4":
        assert not true[0, :, :, 8:, :8][0].any()  # another chunk
        assert true[2, :, :, 8:, :8][0].all()
