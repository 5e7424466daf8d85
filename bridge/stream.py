"""The calls that a model makes to its blocks, recorded once and replayed block by block."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mech.blocks import decoder_blocks, unwrap
from mech.errors import BadInput

Stream = Float[Tensor, "_batch _seq d_model"]


class Call(NamedTuple):
    """What a block was given beside the stream: masks and positions differ between blocks."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def replay(self, block: nn.Module, resid: Stream) -> Stream:
        """The stream after the block."""
        return unwrap(block(resid, *self.args, **self.kwargs))


class Recording(NamedTuple):
    """The stream before the first block, one entry a batch, and `calls[block][batch]`."""

    resid: list[Stream]
    calls: list[list[Call]]


def record(model: nn.Module, batches: Sequence[Int[Tensor, "_batch _seq"]]) -> Recording:
    """Run `model` once over `batches` and keep how it called its blocks.

    Only the first block's input is kept; the rest are masks and positions, which blocks share.
    Raises BadInput where the stream is not finite, and where a block does not get exactly what
    the block before it returned: then it cannot be carried from block to block.
    """
    blocks = decoder_blocks(model)
    resid: list[Stream] = []
    calls: list[list[Call]] = [[] for _ in blocks]
    last: list[Stream] = []

    def before(layer: int):
        def hook(_, args, kwargs):
            kwargs = dict(kwargs)
            stream, args = (args[0], args[1:]) if args else (kwargs.pop("hidden_states"), ())
            if layer == 0:
                resid.append(stream.detach())
            elif not torch.equal(stream, last.pop()):
                raise BadInput(
                    f"{type(model).__name__} alters the stream between blocks {layer - 1} and "
                    f"{layer}: it cannot be compressed block by block"
                )
            calls[layer].append(Call(args, kwargs))

        return hook

    def after(layer: int):
        def hook(_, __, output):
            last[:] = [unwrap(output).detach()]
            if not bool(last[0].isfinite().all()):
                raise BadInput(
                    f"layers.{layer}: its output is not finite, before anything was compressed; "
                    "try bfloat16 or float32, and check the model"
                )

        return hook

    hooks = [
        (block, kind, hook(layer))
        for layer, block in enumerate(blocks)
        for kind, hook in (("pre", before), ("post", after))
    ]
    with hooked(hooks):
        # Without the head: its logits would be the largest thing in memory, and nobody reads them.
        body = getattr(model, "base_model", model)
        for tokens in batches:
            body(input_ids=tokens.to(next(model.parameters()).device), use_cache=False)
    return Recording(resid, calls)


@contextmanager
def hooked(hooks: Sequence[tuple[nn.Module, str, Any]]) -> Iterator[None]:
    """Forward hooks ("pre" with keyword arguments, "post") that are gone afterwards."""
    handles = [
        module.register_forward_pre_hook(hook, with_kwargs=True)
        if kind == "pre"
        else module.register_forward_hook(hook)
        for module, kind, hook in hooks
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout inside; every module in its own mode again after."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
