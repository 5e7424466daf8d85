"""What equation 1 claims where no sink was planted, and what its guards leave of it."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from experiments.recovery import along_first, longest
from mech.capture import capture_blocks
from mech.planted.build import planted
from mech.planted.plan import Kind, Size
from mech.probes import reach, secondary, sinks
from mech.trace import BlockTrace

SHORT = 32
WINDOW = 24


class Claims(NamedTuple):
    """Sinks that are claimed of one model, over its layers and heads: means over its sequences.

    raw: every key, as the papers count. tail: those of raw in the last 16 tokens. guarded: the
    first key and the later ones but the last 16. countable: those where also a head without any
    preference stays below the threshold (`reach.countable`). pairs: (layer, head) there are.
    strict, phases: later tokens whose state is like the first one's (`secondary`), in the span of
    the paper and in the layers in which the first token's norm is raised at all.
    """

    control: str
    pairs: int
    raw: float
    tail: float
    guarded: float
    countable: float
    strict: float
    phases: float


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
    counts = np.zeros(4)
    pairs = 0
    blocks = capture_blocks(model, tokens, lambda block: block)
    for block in blocks:
        # As the papers have it: all later queries, whether a window lets them see the key or not.
        plain = sinks.sinks(sinks.score(block.received))
        seen = sinks.sinks(sinks.score(block.received, block.reach))
        null = reach.null_received(block.heads.low, block.heads.high, block.real)
        guard = sinks.guarded(tokens.shape[1])
        guard[0] = True
        countable = reach.countable(block.reach, null)[:, None]
        parts = plain, plain[..., -sinks.SUPPORT :], seen[..., guard], seen & countable
        counts += [part.sum() / len(tokens) for part in parts]
        pairs += plain.shape[1]
    raw, tail, guarded, countable = counts.tolist()
    return Claims(control, pairs, raw, tail, guarded, countable, *_alike(blocks))


def _alike(blocks: list[BlockTrace]) -> tuple[float, float]:
    """Tokens a sequence that pass for secondary or primary-like sinks, by both spans."""
    norm, cosine = along_first(blocks)
    found = np.zeros((2, norm.shape[1]))
    for row in range(norm.shape[1]):
        later = np.arange(norm.shape[2]) > 0
        for i, where in enumerate((secondary.span(norm[:, row, 0]), longest(norm[:, row]))):
            found[i, row] = len(secondary.secondary(cosine[:, row], where, later).token)
    strict, phases = found.mean(axis=1).tolist()
    return strict, phases


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
