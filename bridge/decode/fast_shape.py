"""Is a model shaped like Llama, and what a decoding step has to know of it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

FAMILIES = ("llama", "mistral", "qwen2")
"""Norm, attention with rotary positions, norm, SwiGLU; without norms or caps of their own."""
ROPES = ("default", "linear", "llama3", "yarn")
"""Rotary tables that do not change with the length of the text."""
DTYPES = (torch.float32, torch.bfloat16)
POSITIONS = 4096
"""Rows of the rotary table to begin with."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama-shaped model."""

    n_heads: int
    n_kv: int
    d_head: int
    d_model: int
    d_mlp: int
    eps: float
    dtype: torch.dtype


def shape_of(model: nn.Module) -> Shape | str:
    """The sizes, or in words why compiled steps would not be this model's."""
    config = getattr(model, "config", None)
    family = getattr(config, "model_type", type(model).__name__)
    if config is None or family not in FAMILIES or not hasattr(model, "lm_head"):
        return f"{family} is not one of {', '.join(FAMILIES)}"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return "attention slides over a window"
    if config.hidden_act != "silu":
        return f"{config.hidden_act} stands where SiLU should"
    rope = config.rope_parameters.get("rope_type", "default")
    if rope not in ROPES:
        return f"rotary tables of kind {rope!r} change with the text"
    weight = model.get_input_embeddings().weight  # type: ignore[operator]
    if weight.device.type != "cpu" or weight.dtype not in DTYPES:
        return f"weights are {weight.dtype} on {weight.device}: float32 or bfloat16 on a CPU"
    d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shape(
        config.num_attention_heads,
        config.num_key_value_heads,
        d_head,
        config.hidden_size,
        config.intermediate_size,
        config.rms_norm_eps,
        weight.dtype,
    )


@torch.no_grad()
def angles(model: nn.Module, positions: int) -> Float[Tensor, "positions 2 half"]:
    """cos and sin of every position, by the model's own rotary module in float32."""
    at = torch.arange(positions)[None]
    cos, sin = model.get_submodule("model.rotary_emb")(torch.zeros(1), at)
    half = cos.shape[-1] // 2
    return torch.stack([cos[0, :, :half], sin[0, :, :half]], 1).contiguous()
