"""The only file that touches a running model: it reads the stream and the attention.

The stream is read at the blocks, because the last entry of `hidden_states` has already been
through the final norm. Attention is read by standing in for the model's attention function
(transformers' AttentionInterface), so no model file is patched and no T × T matrix is kept.
Nothing in the model is changed when a capture ends, whether it ends well or not.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.masking_utils import sdpa_mask

from mech.attention import Attended, attend
from mech.blocks import decoder_blocks, unwrap
from mech.errors import BadInput
from mech.tokens import check_ids
from mech.trace import BlockTrace, Trace

R = TypeVar("R")

_NAME = "mech_reading"


def capture(model: PreTrainedModel, tokens: Int[Tensor, "batch seq"]) -> Trace:
    """Everything the probes read, whole: memory grows with layers × heads × T².

    Raises BadInput as `capture_blocks` does.
    """
    entering: list[np.ndarray] = []
    leaving: list[np.ndarray] = []
    patterns: list[np.ndarray] = []
    z: list[np.ndarray] = []

    def keep(block: BlockTrace, pattern: np.ndarray | None) -> None:
        entering.append(block.resid_pre)
        leaving.append(block.resid_post)
        z.append(block.z)
        if pattern is not None:
            patterns.append(pattern)

    _run(model, tokens, keep, whole=True)
    resid = np.stack([entering[0], *leaving])
    return Trace(tokens.cpu().numpy(), resid, np.stack(patterns), np.stack(z))


def capture_blocks(
    model: PreTrainedModel, tokens: Int[Tensor, "batch seq"], read: Callable[[BlockTrace], R]
) -> list[R]:
    """[read(block) for every block], with one block's arrays in memory at a time.

    Arrays are float32 (float64 for a float64 model) on the CPU, wherever the model is. Raises
    BadInput on ids outside the vocabulary, a model in training mode, attention that cannot be
    read, and activations that are not finite (the block is named).
    """
    results: list[R] = []
    _run(model, tokens, lambda block, _: results.append(read(block)), whole=False)
    return results


@dataclass
class _Reading:
    """The state of one capture: the block that runs now and what has been seen of it."""

    keep: Callable[[BlockTrace, np.ndarray | None], None]
    whole: bool
    layer: int | None = None
    resid_pre: Float[np.ndarray, "batch seq d_model"] | None = None
    attended: Attended | None = None


_reading: ContextVar[_Reading] = ContextVar("mech_reading")


def _run(
    model: PreTrainedModel,
    tokens: Tensor,
    keep: Callable[[BlockTrace, np.ndarray | None], None],
    *,
    whole: bool,
) -> None:
    if model.training:
        raise BadInput("the model is in training mode: call model.eval() first")
    check_ids(model, tokens)
    reading = _Reading(keep, whole)
    blocks = decoder_blocks(model)
    with ExitStack() as stack:
        # Not inference mode: a model that keeps what a pass computes (rotary frequencies of long
        # texts) would be left with tensors that nothing may change outside that mode.
        stack.enter_context(torch.no_grad())
        stack.enter_context(_standing_in(model, reading))
        for layer, block in enumerate(blocks):
            before = block.register_forward_pre_hook(_entering(reading, layer), with_kwargs=True)
            stack.callback(before.remove)
            stack.callback(block.register_forward_hook(_leaving(reading)).remove)
        # The base model has no head: its logits alone would be T × vocabulary floats.
        model.base_model(tokens.to(model.device), use_cache=False)


@contextmanager
def _standing_in(model: PreTrainedModel, reading: _Reading) -> Iterator[None]:
    """Every attention of `model` goes through `_attention` inside, and its own again after."""
    found = (getattr(module, "config", None) for module in model.modules())
    configs = {id(c): c for c in found if isinstance(c, PreTrainedConfig)}
    own = [(config, config._attn_implementation) for config in configs.values()]
    token = _reading.set(reading)
    try:
        for config, _ in own:
            config._attn_implementation = _NAME
        yield
    finally:
        # Setting a configuration sets those nested in it: the outer ones come first in `own`.
        for config, implementation in own:
            config._attn_implementation = implementation
        _reading.reset(token)


def _entering(reading: _Reading, layer: int) -> Callable:
    def hook(_: nn.Module, args: tuple, kwargs: dict) -> None:
        resid = args[0] if args else kwargs["hidden_states"]
        reading.layer = layer
        reading.resid_pre = _finite(_array(resid), f"the stream that enters block {layer}")

    return hook


def _leaving(reading: _Reading) -> Callable:
    def hook(block: nn.Module, _: tuple, output: Tensor | tuple) -> None:
        layer, seen, resid_pre = reading.layer, reading.attended, reading.resid_pre
        reading.layer = reading.attended = reading.resid_pre = None
        if layer is None or resid_pre is None or seen is None:
            raise BadInput(
                f"{type(block).__name__} does not call transformers' AttentionInterface: "
                "the attention of this model cannot be read"
            )
        post = _finite(_array(unwrap(output)), f"the stream that leaves block {layer}")
        trace = BlockTrace(layer, resid_pre, post, _array(seen.received), _array(seen.z))
        reading.keep(trace, None if seen.pattern is None else _array(seen.pattern))

    return hook


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """The attention function that stands in while a model is read."""
    for name in ("s_aux", "position_bias", "head_mask"):
        if kwargs.get(name) is not None:
            raise BadInput(
                f"{type(module).__name__} passes `{name}` to its attention (learned sinks or "
                "biases): its pattern cannot be read yet"
            )
    reading = _reading.get()
    if reading.layer is not None and reading.attended is not None:
        raise BadInput(f"block {reading.layer} attends more than once: it cannot be read yet")
    attended = attend(
        query,
        key,
        value,
        attention_mask,
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        softcap=softcap,
        whole=reading.whole and reading.layer is not None,
    )
    if reading.layer is not None:
        reading.attended = attended
    return attended.z.to(query.dtype).transpose(1, 2).contiguous(), None


def _array(x: Tensor) -> Float[np.ndarray, "..."]:
    # A copy even on the CPU: blocks may change the stream in place.
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.detach().to("cpu", dtype, copy=True).numpy()


def _finite(array: np.ndarray, where: str) -> np.ndarray:
    if not np.isfinite(array).all():
        raise BadInput(
            f"{where} is not finite (NaN or inf): check that block's weights, or load the model "
            "in bfloat16 or float32 if it is float16"
        )
    return array


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
