"""A model on disk with the operators of its shards, a block in memory at a time."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from torch import nn

from bridge.seams import Shards
from bridge.sites import place, show, standing
from mech.blocks import decoder_blocks
from mech.errors import BadInput
from mech.ondisk import resident


class Dressed(NamedTuple):
    """Names of the operators that stand in a block; whether its family has linears there."""

    names: list[str]
    shown: bool


@contextmanager
def dressed(model: nn.Module, shards: Shards, layer: int) -> Iterator[Dressed]:
    """Inside, a block is in memory, with operators where `shards` keeps some.

    Raises BadInput where its shard is missing or damaged.
    """
    kept = shards.read(layer) if shards.holds(layer) else {}
    if kept is None:
        raise BadInput(f"layers.{layer}: its shard is damaged; compress again, the others are kept")
    block = decoder_blocks(model)[layer]
    with resident(block):
        stood = show(model, kept)
        before = {n: decoder_blocks(model).get_submodule(n.removeprefix("layers.")) for n in kept}
        try:
            operators: Any = {n: standing(one.operator, before[n]) for n, one in kept.items()}  # type: ignore[arg-type]
            place(model, operators)
            yield Dressed(list(kept), bool(stood))
        finally:
            place(model, {**before, **stood})


@contextmanager
def worn(model: nn.Module, shards: Shards) -> Iterator[None]:
    """Inside, every pass of a model on disk is the compressed one's: each block is `dressed`.

    Not for `bridge.compress`, and not for whoever reads `resident` weights: those are dense.
    """
    with ExitStack() as hooks:
        for layer, block in enumerate(decoder_blocks(model)):
            if not shards.holds(layer):
                continue
            inside: list[ExitStack] = []

            def enter(*_: Any, layer: int = layer, inside: list[ExitStack] = inside) -> None:
                with ExitStack() as stack:
                    stack.enter_context(dressed(model, shards, layer))
                    inside.append(stack.pop_all())

            def leave(*_: Any, inside: list[ExitStack] = inside) -> None:
                if inside:  # not where the reading failed
                    inside.pop().close()

            hooks.callback(block.register_forward_pre_hook(enter).remove)
            hooks.callback(block.register_forward_hook(leave, always_call=True).remove)
        yield
