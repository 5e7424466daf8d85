"""Reading a running model: its stream, its attention, and what each block writes.

The stream is read at the blocks, because the last entry of `hidden_states` has already been
through the final norm. Attention is read by the function that stands in for the model's own
(mech/standing.py), so no T × T matrix is kept. Nothing in the model is changed when a capture
ends, whether it ends well or not.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from ctr_kernels.sink_mass import SinkMass
from mech import standing
from mech.attention import pattern_rows
from mech.blocks import decoder_blocks, unwrap
from mech.errors import BadInput
from mech.masks import padding
from mech.standing import Call, current_reader, reading, unread
from mech.tokens import check_ids
from mech.trace import BlockTrace, Heads, Trace
from mech.writes import Writes

R = TypeVar("R")


def capture(
    model: PreTrainedModel,
    tokens: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"] | None = None,
) -> Trace:
    """Everything the probes read, whole: memory grows with layers × heads × T².

    Raises BadInput as `capture_blocks` does.
    """
    resid: list[np.ndarray] = []
    patterns: list[np.ndarray] = []
    z: list[np.ndarray] = []

    def keep(block: BlockTrace) -> None:
        resid.extend([block.resid_post] if resid else [block.resid_pre, block.resid_post])
        patterns.append(pattern_rows(block.heads, np.arange(tokens.shape[1])))
        z.append(block.z)

    capture_blocks(model, tokens, keep, attention_mask)
    return Trace(tokens.cpu().numpy(), np.stack(resid), np.stack(patterns), np.stack(z))


def capture_blocks(
    model: PreTrainedModel,
    tokens: Int[Tensor, "batch seq"],
    read: Callable[[BlockTrace], R],
    attention_mask: Int[Tensor, "batch seq"] | None = None,
) -> list[R]:
    """[read(block) for every block], with one block's arrays in memory at a time.

    `attention_mask` is 1 at tokens and 0 at padding, on either side; padding attends to nothing
    and is not attended to, and positions are counted over real tokens, so that a padded sequence
    reads as it would alone. Arrays are float32 (float64 for a float64 model) on the CPU, wherever
    the model is. Raises BadInput on ids outside the vocabulary, a mask with a hole, a model in
    training mode, attention that cannot be read, more tokens than learned positions,
    and activations that are not finite (the block is named).

    Examples:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> small = {"hidden_size": 8, "intermediate_size": 8, "vocab_size": 9}
        >>> settings = LlamaConfig(**small, num_attention_heads=2, num_hidden_layers=3)
        >>> model = LlamaForCausalLM(settings).eval()
        >>> capture_blocks(model, torch.tensor([[1, 2, 3, 4]]), lambda block: block.received.shape)
        [(1, 2, 4), (1, 2, 4), (1, 2, 4)]
    """
    if model.training:
        raise BadInput("the model is in training mode: call model.eval() first")
    check_ids(model, tokens)
    real = padding(tokens, attention_mask)
    results: list[R] = []
    pass_ = _Pass(lambda block: results.append(read(block)), real.cpu().numpy())
    with ExitStack() as stack:
        # Not inference mode: a model that keeps what a pass computes (rotary frequencies of long
        # texts) would be left with tensors that nothing may change outside that mode.
        stack.enter_context(torch.no_grad())
        stack.enter_context(reading(model, pass_.attended))
        blocks = decoder_blocks(model)
        for layer, block in enumerate(blocks):
            for handle in pass_.hooks(layer, block):
                stack.callback(handle.remove)
        # The base model has no head: its logits alone would be T × vocabulary floats.
        try:
            inputs = _padded(real, model.device)
            model.base_model(tokens.to(model.device), use_cache=False, **inputs)
        except RuntimeError as error:
            # Attention of a model's own fails at once: it cannot use intervals of keys as a mask.
            if model._can_set_attn_implementation() or pass_.layer or _from_standing(error):
                raise
            raise _unreadable(type(blocks[0]).__name__) from error
        except IndexError as error:
            if pass_.block is not None:
                raise
            raise BadInput(
                f"{tokens.shape[1]} tokens are more than a {type(model).__name__} has positions "
                "for: give shorter sequences"
            ) from error
    return results


def _from_standing(error: BaseException) -> bool:
    """Whether attention did come to our function, and that failed or an edit in it."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_filename == standing.__file__ for frame, _ in frames)


def _unreadable(name: str) -> BadInput:
    return BadInput(
        f"{name} does not call transformers' AttentionInterface: the attention of this model "
        "cannot be read"
    )


def _padded(real: Tensor, device: torch.device) -> dict[str, Tensor]:
    if real.all():
        return {}
    positions = (real.cumsum(dim=1) - 1).clamp(min=0)
    return {"attention_mask": real.to(device).long(), "position_ids": positions.to(device)}


@dataclass
class _Pass:
    """The state of one capture: the block that runs now and what has been seen of it."""

    keep: Callable[[BlockTrace], None]
    real: np.ndarray
    layer: int | None = None
    block: nn.Module | None = None
    pre: Tensor | None = None
    seen: tuple[Call, SinkMass, Tensor] | None = None
    writes: Writes = field(default_factory=Writes)

    def attended(self, call: Call, found: SinkMass, z: Tensor) -> None:
        """Attention's word, from inside a block."""
        if self.layer is None:
            return
        if self.seen is not None:
            raise BadInput(f"block {self.layer} attends more than once: it cannot be read yet")
        self.seen = call, found, z

    def hooks(self, layer: int, block: nn.Module) -> Iterator[RemovableHandle]:
        """Hooks on a block and on its children; they keep silent in any other pass."""

        def entering(_: nn.Module, args: tuple, kwargs: dict) -> None:
            if self._runs():
                resid = args[0] if args else kwargs["hidden_states"]
                self.block = block
                self._enter(layer, resid)

        def leaving(_: nn.Module, args: tuple, output: Tensor | tuple) -> None:
            if self._runs():
                found = self._leave(block, unwrap(output))
                with unread():
                    self.keep(found)

        yield block.register_forward_pre_hook(entering, with_kwargs=True)
        for child in block.children():
            yield child.register_forward_hook(self._child, with_kwargs=True)
        yield block.register_forward_hook(leaving)

    def _runs(self) -> bool:
        # Another thread's pass, or one inside `read`, may run through the same blocks.
        return current_reader() == self.attended

    def _enter(self, layer: int, resid: Tensor) -> None:
        self.layer, self.seen, self.writes = layer, None, Writes()
        # A copy: blocks may change the stream in place.
        self.pre = resid.detach().clone()

    def _child(self, _: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        if self.seen is not None and self._runs():
            self.writes.follow(args[0] if args else kwargs.get("hidden_states"), output)

    def _leave(self, block: nn.Module, post: Tensor) -> BlockTrace:
        layer, pre, seen, writes = self.layer, self.pre, self.seen, self.writes
        self.layer = self.pre = self.seen = None
        self.writes = Writes()
        if layer is None or pre is None or seen is None:
            raise _unreadable(type(block).__name__)
        added = writes.found(pre, post)
        attn, mlp = (None, None) if added is None else map(_array, added)
        call, found, z = seen
        heads = _heads(call, len(self.real))
        return BlockTrace(
            layer=layer,
            real=self.real,
            resid_pre=_finite(_array(pre), f"the stream that enters block {layer}"),
            resid_post=_finite(_array(post.clone()), f"the stream that leaves block {layer}"),
            attn_write=attn,
            mlp_write=mlp,
            received=_array(found.received),
            reach=_reach(heads.low, heads.high),
            missing=_array(found.missing),
            z=_array(z),
            heads=heads,
        )


def _heads(call: Call, batch: int) -> Heads:
    low, high = (bound.expand(batch, -1).cpu().numpy() for bound in (call.low, call.high))
    return Heads(
        query=_array(call.query),
        key=_array(call.key),
        value=_array(call.value),
        lse=_array(call.lse),
        low=low,
        high=high,
        scaling=call.scaling,
        softcap=call.softcap,
        sink=None if call.sink is None else _array(call.sink),
    )


def _reach(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """How many queries see each key: +1 where an interval begins, -1 behind its end, summed."""
    steps = np.zeros((low.shape[0], low.shape[1] + 1), dtype=np.int64)
    batch, query = np.nonzero(low <= high)
    np.add.at(steps, (batch, low[batch, query]), 1)
    np.add.at(steps, (batch, high[batch, query] + 1), -1)
    return steps.cumsum(axis=1)[:, :-1]


def _array(x: Tensor) -> Float[np.ndarray, "..."]:
    # Shares memory on the CPU: only what no later operation of the model writes to comes here.
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.detach().to("cpu", dtype).numpy()


def _finite(array: np.ndarray, where: str) -> np.ndarray:
    if not np.isfinite(array).all():
        raise BadInput(
            f"{where} is not finite (NaN or inf): check that block's weights, or load the model "
            "in bfloat16 or float32 if it is float16"
        )
    return array
