"""Linears that hold several matrices: each of them is compressed on its own."""

from torch import nn


def parts(model: nn.Module, name: str, linear: nn.Linear) -> list[int]:
    """Rows of each matrix in a linear: [d_q, d_k, d_v] where they are fused, else all.

    `qkv_proj` is Phi-3's, `c_attn` GPT-2's. OATS splits fused queries, keys and values and keeps
    a fused gate and up as one matrix.
    GPT-NeoX interleaves q, k and v head by head: there the linear stays one matrix too.
    """
    config = getattr(model, "config", None)
    if not name.endswith((".qkv_proj", ".c_attn")) or config is None:
        return [linear.out_features]
    text = config.get_text_config(decoder=True)
    heads = text.num_attention_heads
    keys = getattr(text, "num_key_value_heads", None) or heads
    d_head = getattr(text, "head_dim", None) or text.hidden_size // heads
    sizes = [heads * d_head, keys * d_head, keys * d_head]
    return sizes if sum(sizes) == linear.out_features else [linear.out_features]
