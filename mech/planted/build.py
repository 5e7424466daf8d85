"""The model itself: a LlamaForCausalLM that transformers runs as it runs any other."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from transformers import LlamaConfig, LlamaForCausalLM

from mech.planted import weights
from mech.planted.plan import NOISE, Kind, Plan, Size, draw, sequences
from mech.planted.stream import directions, embeddings


class Planted(NamedTuple):
    """A model, prompts for it, and the truth about both."""

    model: LlamaForCausalLM
    tokens: Int[torch.Tensor, "batch seq"]
    plan: Plan


def planted(
    seed: int,
    size: Size | None = None,
    *,
    kind: Kind = "plants",
    batch: int = 4,
    noise: float = NOISE,
) -> Planted:
    """A Llama with known sinks, tags and outliers; everything about it is drawn from the seed.

    Kinds without sinks are controls: every head `uniform`, every head `local` (it looks at
    itself and its last few neighbours), or `massive` tokens that nobody attends to. Raises
    BadInput for a shape that cannot hold the plants.
    """
    plan = draw(seed, size or Size(), kind, noise)
    return Planted(build(plan), torch.from_numpy(sequences(plan, batch)), plan)


def build(plan: Plan) -> LlamaForCausalLM:
    """The model of a plan: float32, without biases, RMSNorm weights 1, SwiGLU."""
    size = plan.size
    config = LlamaConfig(
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
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
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
