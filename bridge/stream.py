"""The calls that a model makes to its blocks, recorded once and replayed block by block."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mech.blocks import decoder_blocks, unwrap
from mech.errors import BadInput

Stream = Float[Tensor, "batch seq d_model"]


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


def record(model: nn.Module, batches: Sequence[Int[Tensor, "batch seq"]]) -> Recording:
    """Run `model` once over `batches` and keep how it called its blocks.

    Only the first block's input is kept; the rest are masks and positions, which blocks share.
    Raises BadInput where a block does not get exactly what the block before it returned, since
    then the stream cannot be carried from block to block.
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

    def after(_, __, output):
        last[:] = [unwrap(output).detach()]

    with hooked(
        [(b, "pre", before(i)) for i, b in enumerate(blocks)] + [(b, "post", after) for b in blocks]
    ):
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
