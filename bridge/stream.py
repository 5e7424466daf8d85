"""The calls that a model makes to its blocks, recorded once and replayed block by block."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mech.blocks import decoder_blocks, unwrap
from mech.errors import BadInput
from mech.ondisk import where

Stream = Float[Tensor, "_batch _seq d_model"]


class Call(NamedTuple):
    """What a block was given beside the stream: masks and positions differ between blocks."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def replay(self, block: nn.Module, resid: Stream) -> Stream:
        """The stream after the block."""
        return unwrap(block(resid, *self.args, **self.kwargs))


class Recording(NamedTuple):
    """The stream before the first block, one entry a batch, and `calls[block][batch]`.

    passable: whether a block hands on the stream and nothing else, so that calls can be recorded
    without running it (`passed`). tuples: how many entries each block's output has; 0 for a tensor.
    """

    resid: Sequence[Stream]
    calls: list[list[Call]]
    tuples: list[int]
    passable: bool


def record(
    model: nn.Module, batches: Sequence[Int[Tensor, "_batch _seq"]], resid: Any = None
) -> Recording:
    """Run `model` once over `batches` and keep how it called its blocks.

    Only the first block's input is kept; the rest are masks and positions, which blocks share.
    `resid`: what the input is appended to, where it is not to stay in memory.
    Raises BadInput where the stream is not finite, and where a block does not get exactly what
    the block before it returned: then it cannot be carried from block to block.
    """
    blocks = decoder_blocks(model)
    resid = [] if resid is None else resid
    calls: list[list[Call]] = [[] for _ in blocks]
    tuples, passable = [0 for _ in blocks], [True]
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
            if isinstance(output, tuple):
                tuples[layer] = len(output)
                passable[0] &= all(other is None for other in output[1:])
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
        for tokens in batches:
            _run(model, tokens)
    return Recording(resid, calls, tuples, passable[0])


def passed(
    model: nn.Module,
    batches: Sequence[Int[Tensor, "_batch _seq"]],
    like: Recording,
    resid: Any = None,
) -> Recording:
    """`record` without running a block: each hands its input on, and is called as it would be.

    Masks and positions are functions of the tokens alone. `like`: a recording of this model, run
    for real. It costs no block's weights, which may lie on disk. Where `like` is not passable
    blocks are run.
    """
    if not like.passable:
        return record(model, batches, resid)
    blocks = decoder_blocks(model)
    stock = list(blocks)
    resid = [] if resid is None else resid
    calls: list[list[Call]] = [[] for _ in stock]
    try:
        for layer, block in enumerate(stock):
            blocks[layer] = _Passing(block, calls[layer], like.tuples[layer])
        hook = ("pre", lambda _, args, kwargs: resid.append(_stream(args, kwargs).detach()))
        with hooked([(blocks[0], *hook)]):
            for tokens in batches:
                _run(model, tokens)
    finally:
        for layer, block in enumerate(stock):
            blocks[layer] = block
    return Recording(resid, calls, like.tuples, True)


class _Passing(nn.Module):
    """Stands where a block stood, and hands the stream on."""

    def __init__(self, block: nn.Module, calls: list[Call], entries: int):
        super().__init__()
        self.stood = (block,)  # in a tuple, so that it is no sub-module
        self.calls, self.entries = calls, entries

    def __getattr__(self, name: str) -> Any:
        # Families ask a block for its kind of attention before they call it.
        stood = self.__dict__.get("stood")
        return super().__getattr__(name) if stood is None else getattr(stood[0], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        stream = _stream(args, kwargs)
        kwargs.pop("hidden_states", None)
        self.calls.append(Call(args[1:], kwargs))
        return (stream, *[None] * (self.entries - 1)) if self.entries else stream


def _stream(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Stream:
    return args[0] if args else kwargs["hidden_states"]


def _run(model: nn.Module, tokens: Int[Tensor, "_batch _seq"]) -> None:
    # Without the head: its logits would be the largest thing in memory, and nobody reads them.
    body = getattr(model, "base_model", model)
    body(input_ids=tokens.to(where(model)), use_cache=False)


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
