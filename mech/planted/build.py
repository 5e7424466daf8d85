"""The model itself: a LlamaForCausalLM that transformers runs as it runs any other."""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from mech.planted import weights
from mech.planted.plan import NOISE, Kind, Plan, Size, draw, sequences
from mech.planted.stream import directions, embeddings


class Planted(NamedTuple):
    """A model, prompts for it, and the truth about both."""

    model: PreTrainedModel
    tokens: Int[torch.Tensor, "batch seq"]
    plan: Plan


def planted(
    seed: int,
    size: Size | None = None,
    *,
    kind: Kind = "plants",
    batch: int = 4,
    noise: float = NOISE,
    window: int | None = None,
) -> Planted:
    """A Llama with known sinks, tags and outliers; everything about it is drawn from the seed.

    Kinds without sinks are controls: every head `uniform`, every head `local` (it looks at
    itself and its last few neighbours), or `massive` tokens that nobody attends to. With a
    `window` every query sees so many keys only, which the closed form does not know. Raises
    BadInput for a shape that cannot hold the plants.
    """
    plan = draw(seed, size or Size(), kind, noise)
    return Planted(build(plan, window), torch.from_numpy(sequences(plan, batch)), plan)


def build(plan: Plan, window: int | None = None) -> PreTrainedModel:
    """The model of a plan: float32, without biases, RMSNorm weights 1, SwiGLU.

    A Llama; with a sliding window a Mistral of the same weights, which is how the two differ.
    """
    size = plan.size
    shape: dict[str, Any] = dict(
        vocab_size=size.vocabulary,
        hidden_size=size.d_model,
        intermediate_size=weights.NEURONS,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        head_dim=size.d_head,
        max_position_embeddings=size.seq,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": float(size.seq) ** (size.d_head / 2),
        },
        rms_norm_eps=1e-9,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=None,
    )
    if window is None:
        model = LlamaForCausalLM(LlamaConfig(**shape))
    else:
        model = MistralForCausalLM(MistralConfig(**shape, sliding_window=window))
    model = model.eval().requires_grad_(False)
    # Ours map row vectors, x @ matrix; torch keeps their transposes.
    exact = {
        name: torch.from_numpy(np.ascontiguousarray(matrix.T)).float()
        for name, matrix in _matrices(plan).items()
    }
    norms = {name: value for name, value in model.state_dict().items() if "norm" in name}
    model.load_state_dict({**exact, **norms})
    return model


def _matrices(plan: Plan) -> dict[str, np.ndarray]:
    """Every weight by its name in a Llama."""
    along = directions(plan)
    rng = np.random.default_rng([plan.seed, 4])
    size = plan.size
    unembedding = rng.standard_normal((size.d_model, size.vocabulary)) / np.sqrt(size.d_model)
    found = {"model.embed_tokens": embeddings(plan, along).T, "lm_head": unembedding}
    for layer in range(size.layers):
        W_V, W_O = weights.values(plan, along, layer, rng)
        gate, up, down = weights.neurons(plan, along, layer)
        block = {
            "self_attn.q_proj": weights.queries(plan, along, layer, rng),
            "self_attn.k_proj": weights.keys(plan, along, layer, rng),
            "self_attn.v_proj": W_V,
            "self_attn.o_proj": W_O,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": down,
        }
        found |= {f"model.layers.{layer}.{name}": matrix for name, matrix in block.items()}
    return {f"{name}.weight": matrix for name, matrix in found.items()}
