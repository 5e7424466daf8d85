"""What a plan is judged by: the loss of the gated model, from the first block that may change."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bridge.decode.plan import Plan, Setting
from bridge.search.gates import Gates
from bridge.sites import block_of
from bridge.stream import evaluating
from mech.blocks import decoder_blocks


class Objective:
    """Mean -log p a token over `batches`, in nats, every token gated; exp of it: perplexity."""

    def __init__(
        self, model: nn.Module, batches: Sequence[Int[Tensor, "_batch _seq"]], gates: Gates
    ):
        self.model, self.batches, self.gates = model, list(batches), gates
        self.blocks = decoder_blocks(model)
        self.first = 0
        self._stored: list[Any] = []

    def __call__(self, plan: Mapping[str, Setting]) -> float:
        """The loss with these linears gated; inside `after`, only those behind its blocks count."""
        return float(self.losses(plan).mean())

    @torch.no_grad()
    def losses(self, plan: Plan) -> Float[Tensor, " tokens"]:
        """The loss of every token that has one before it, in order."""
        behind = {name: s for name, s in plan.items() if block_of(name) >= self.first}
        with self.gates.on(behind), self._skipping() as step, evaluating(self.model):
            parts = []
            for number, ids in enumerate(self.batches):
                step(number)
                logits = self.model(input_ids=ids, use_cache=False).logits[:, :-1].float()
                target = ids[:, 1:].flatten()
                parts.append(
                    nn.functional.cross_entropy(logits.flatten(0, 1), target, reduction="none")
                )
        return torch.cat(parts).double()

    @contextmanager
    @torch.no_grad()
    def after(self, blocks: int, plan: Plan) -> Iterator[None]:
        """Inside, the first so many blocks are fixed as in `plan`, and run once, now."""
        stored: list[Any] = []
        before = {name: s for name, s in plan.items() if block_of(name) < blocks}
        if blocks:
            hook = self.blocks[blocks - 1].register_forward_hook(
                lambda _, __, output: stored.append(output)
            )
            try:
                with self.gates.on(before), evaluating(self.model):
                    for ids in self.batches:
                        self.model(input_ids=ids, use_cache=False, logits_to_keep=1)
            finally:
                hook.remove()
        self.first, self._stored = blocks, stored
        try:
            yield
        finally:
            self.first, self._stored = 0, []

    @contextmanager
    def _skipping(self) -> Iterator[Any]:
        """Blocks that are fixed return what the last of them returned when they were run."""
        now = [0]

        def step(number: int) -> None:
            now[0] = number

        # The instance's own forward: hooks and attributes of the block stay in their place.
        for block in self.blocks[: self.first]:
            vars(block)["forward"] = lambda *args, **kwargs: self._stored[now[0]]
        try:
            yield step
        finally:
            for block in self.blocks[: self.first]:
                del block.forward
