"""What equation 1 claims where no sink was planted, and what its guards leave of it."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from mech.capture import capture_blocks
from mech.planted.build import planted
from mech.planted.plan import Kind, Size
from mech.probes import reach, sinks

SHORT = 32
WINDOW = 24


class Claims(NamedTuple):
    """Sinks that are claimed of one model, over its layers and heads: means over its sequences.

    raw: every key, as the papers count. tail: those of raw in the last 16 tokens. guarded: the
    first key and the later ones but the last 16. countable: those where also a head without any
    preference stays below the threshold (`reach.countable`). pairs: (layer, head) there are.
    """

    control: str
    pairs: int
    raw: float
    tail: float
    guarded: float
    countable: float


def controls(seed: int, size: Size) -> list[Claims]:
    """Every control of one seed."""
    found = []
    kinds: list[tuple[str, Kind]] = [
        ("uniform attention", "uniform"),
        ("local attention", "local"),
        ("massive tokens that nobody looks at", "massive"),
    ]
    for name, kind in kinds:
        made = planted(seed, size, kind=kind)
        found.append(claims(name, made.model, made.tokens))
        if kind != "massive":
            short = made.tokens[:, :SHORT]
            found.append(claims(f"{name}, the first {SHORT} tokens", made.model, short))
    made = planted(seed, size, kind="uniform", window=WINDOW)
    found.append(claims(f"uniform attention, a window of {WINDOW}", made.model, made.tokens))
    return [*found, claims("random weights, default scale", _random(seed, size), made.tokens)]


def claims(control: str, model: PreTrainedModel, tokens: Int[torch.Tensor, "batch seq"]) -> Claims:
    """What is claimed of one model on these tokens."""
    total = np.zeros(4)
    pairs = 0
    for block in capture_blocks(model, tokens, lambda block: block):
        # As the papers have it: all later queries, whether a window lets them see the key or not.
        raw = sinks.sinks(sinks.score(block.received))
        seen = sinks.sinks(sinks.score(block.received, block.reach))
        null = reach.null_received(block.heads.low, block.heads.high, block.real)
        guard = sinks.guarded(tokens.shape[1])
        guard[0] = True
        countable = reach.countable(block.reach, null)[:, None]
        parts = raw, raw[..., -sinks.SUPPORT :], seen[..., guard], seen & countable
        total += [part.sum() / len(tokens) for part in parts]
        pairs += raw.shape[1]
    return Claims(control, pairs, *total.tolist())


def _random(seed: int, size: Size) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.d_model,
        intermediate_size=4 * size.d_model,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        head_dim=size.d_head,
        max_position_embeddings=size.seq,
    )
    return LlamaForCausalLM(config).eval()
