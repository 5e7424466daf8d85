"""Decoding steps of a Llama-shaped model in compiled calls, in place and back.

Once linears read less, what lies between them (norms, rotation, the cache, attention of one query,
Python) is a large share of a token; here it is three compiled calls a block.
"""

import functools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from bridge.decode.fast_cache import Held, held
from bridge.decode.fast_shape import Shape, shape_of
from bridge.decode.fast_step import Step
from bridge.decode.gated import Gated
from bridge.decode.phase import Phase

WIDEST_BATCH = 8
PLAIN = {"return_dict": (None, True), "use_cache": (None, True), "logits_to_keep": (0, 1)}
"""Arguments beside ids, mask, positions and cache, and the values that change nothing here."""


@dataclass
class Fast:
    """What ran: steps in compiled calls, and why others did not."""

    model: nn.Module
    shape: Shape | None
    """None where the model is not Llama-shaped: then all is its own, as `declined` says."""
    steps: int = 0
    declined: Counter[str] = field(default_factory=Counter)
    phases: list[Phase] = field(default_factory=list)
    """Of gated linears, which are told that a step begins."""
    made: dict[int, Step] = field(default_factory=dict)
    """Memory and bound linears, by the number of sequences."""

    def step(
        self,
        ids: Int[Tensor, " batch"],
        layers: list[Held],
        positions: Int[Tensor, " batch"],
        seen: Tensor | None = None,
    ) -> Float[Tensor, "batch d_vocab"]:
        """As `Step`'s call; memory for a batch of a new size is made when it comes."""
        assert self.shape is not None
        batch = len(ids)
        if batch not in self.made:
            self.made[batch] = Step(self.model, self.shape, batch)
        for phase in self.phases:
            phase.begin(batch, 1)
        self.steps += 1
        return self.made[batch](ids, layers, positions, seen)


@contextmanager
def fast(model: nn.Module) -> Iterator[Fast]:
    """Inside, calls with one token a sequence and a filled cache run compiled; others as before.

    The model's logits, up to rounding: between linears sums are float32 where the model rounds to
    its dtype. `generate`, batches (up to 8) and padding on the left work. Enter it inside
    `sparsified`, whose linears are then what a step calls. Models of other shapes, and calls that
    want more than logits, are the model's own business: `declined` says which and why.
    """
    shape = shape_of(model)
    run = Fast(model, shape if isinstance(shape, Shape) else None)
    run.phases += {id(m.phase): m.phase for m in model.modules() if isinstance(m, Gated)}.values()
    own = model.forward

    @functools.wraps(own)
    def forward(*args: Any, **kwargs: Any) -> Any:
        given = {**kwargs, **({"input_ids": args[0]} if args else {})}
        reason = shape if isinstance(shape, str) else _declines(model, given, len(args))
        if reason:
            run.declined[reason] += 1
            return own(*args, **kwargs)
        found = _stepped(run, given)
        if found is None:
            run.declined["the cache slides, is quantised or lies elsewhere"] += 1
            return own(*args, **kwargs)
        return found

    model.forward = forward  # type: ignore[method-assign]
    try:
        yield run
    finally:
        del model.forward


def _declines(model: nn.Module, given: dict[str, Any], positional: int) -> str:
    """Why a call is none of ours; empty where it is."""
    ids, cache, mask = (given.get(k) for k in ("input_ids", "past_key_values", "attention_mask"))
    if ids is None or positional > 1 or ids.dim() != 2 or ids.shape[1] != 1:
        return "more than one token a sequence"
    if not isinstance(cache, Cache) or not cache.get_seq_length():
        return "nothing in the cache"
    if len(ids) > WIDEST_BATCH:
        return f"more than {WIDEST_BATCH} sequences"
    known = {"input_ids", "past_key_values", "attention_mask", "position_ids"}
    for name, value in given.items():
        if name not in known and value is not None and value not in PLAIN.get(name, ()):
            return f"{name} is asked for"
    if mask is not None and (mask.dim() != 2 or not bool(mask[:, -1].all())):
        return "a mask over more than places"
    if torch.is_grad_enabled() and any(p.requires_grad for p in model.parameters()):
        return "gradients are asked for"
    return ""


def _stepped(run: Fast, given: dict[str, Any]) -> CausalLMOutputWithPast | None:
    ids, cache, mask = (given.get(k) for k in ("input_ids", "past_key_values", "attention_mask"))
    assert isinstance(ids, Tensor)
    assert isinstance(cache, Cache)
    layers = held(cache)
    if layers is None:
        return None
    positions = given.get("position_ids")
    at = torch.full((len(ids),), layers[0].length) if positions is None else positions[:, -1]
    seen = None if mask is None else mask[:, :-1].bool()
    logits = run.step(ids[:, 0], layers, at.expand(len(ids)), seen)
    # A loop may keep the logits of several steps.
    return CausalLMOutputWithPast(logits=logits[:, None].clone(), past_key_values=cache)  # type: ignore[arg-type]
