"""One pass of a model under changes, and everything of it that a link of the chain is read from."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from ctr_kernels.sink_mass import SinkMass
from experiments.parts.chain.holds import Changes, streaming
from mech import standing
from mech.blocks import decoder_blocks, unwrap
from mech.causal import intervene
from mech.probes import massive, sinks
from mech.reach import Seen, Sinks, Where, written

RATIO = 100.0
"""|h| > 100 and 100 medians of the state: the massive activations of early blocks count too."""

Place = tuple[int, int]
"""(layer, head)."""


class Look(NamedTuple):
    """What to keep of a pass: heads' outputs, and the streams that leave some blocks."""

    places: tuple[Place, ...] = ()
    blocks: tuple[int, ...] = ()


class Writing(NamedTuple):
    """Of some tokens of every sequence, by layer: w°, and Σ_s w°_s v°_s."""

    weight: dict[int, Float[Tensor, "batch head query sink"]]
    tag: dict[int, Float[Tensor, "batch head query d_head"]]


class Dense(NamedTuple):
    """What a hold puts back, of one batch: what sinks and as many random tokens write, the stream.

    mask, value: where the stream that leaves a block is massive, and that stream.
    """

    sinks: Writing
    random: Writing
    mask: dict[int, Bool[Tensor, "batch seq d_model"]]
    value: dict[int, Float[Tensor, "batch seq d_model"]]


class Passed(NamedTuple):
    """α of every layer, head and key; outputs of heads and streams that were asked for; logits.

    size: at the dense model's massive entries, h / h° in [0, 1], mean over them, of each sequence.
    """

    alpha: Float[np.ndarray, "layer batch head key"]
    z: dict[Place, Float[np.ndarray, "batch seq d_head"]]
    streams: dict[int, Float[np.ndarray, "batch seq d_model"]]
    size: Float[np.ndarray, " batch"]
    logits: Float[Tensor, "batch seq vocabulary"]


def dense_pass(
    model: PreTrainedModel, ids: Int[Tensor, "batch seq"], named: Sinks, random: Sinks, look: Look
) -> tuple[Passed, Dense]:
    """The model as it is, and all that is held against it later."""
    kept = Dense(Writing({}, {}), Writing({}, {}), {}, {})

    def attended(call: standing.Call, found: SinkMass, z: Tensor) -> None:
        assert call.layer is not None
        seen = Seen(**call._asdict(), gram=_nothing)
        for tokens, writing in ((named, kept.sinks), (random, kept.random)):
            here = written(seen, Where((call.layer,), tokens))
            writing.weight[call.layer] = here.weight
            writing.tag[call.layer] = here.weight @ here.value

    def left(block: int, h: Tensor) -> None:
        array = h.float().cpu().numpy()
        (mask,) = massive.massive_entries(array, np.ones(array.shape[:2], bool), RATIO)
        kept.mask[block], kept.value[block] = torch.from_numpy(mask).to(h.device), h

    passed = _pass(model, ids, Changes(), look, attended, left)
    return passed._replace(size=np.ones(len(ids))), kept


def changed_pass(
    model: PreTrainedModel,
    ids: Int[Tensor, "batch seq"],
    changes: Changes,
    look: Look,
    dense: Dense,
) -> Passed:
    """The model under changes, beside what the dense one was."""
    part, whole = np.zeros(len(ids)), np.zeros(len(ids))

    def left(block: int, h: Tensor) -> None:
        mask = dense.mask[block]
        if mask.any():
            share = (h / dense.value[block]).clamp(0, 1)
            part[:] += torch.where(mask, share, 0).sum(dim=(1, 2)).double().cpu().numpy()
            whole[:] += mask.sum(dim=(1, 2)).cpu().numpy()

    passed = _pass(model, ids, changes, look, None, left)
    empty = np.full(len(ids), np.nan)
    return passed._replace(size=np.divide(part, whole, out=empty, where=whole > 0))


@torch.no_grad()
def _pass(model, ids, changes: Changes, look: Look, also, left) -> Passed:
    received: list[np.ndarray] = []
    z: dict[Place, np.ndarray] = {}
    streams: dict[int, np.ndarray] = {}

    def attended(call: standing.Call, found: SinkMass, output: Tensor) -> None:
        received.append(found.received.float().cpu().numpy())
        z.update(
            {
                at: output[:, at[1]].float().cpu().numpy()
                for at in look.places
                if at[0] == call.layer
            }
        )
        if also is not None:
            also(call, found, output)

    def leaving(block: int, h: Tensor) -> None:
        if block in look.blocks:
            streams[block] = h.float().cpu().numpy()
        left(block, h)

    with ExitStack() as stack:
        stack.enter_context(streaming(model, changes.streams))
        stack.enter_context(_watched(model, leaving))
        changed = stack.enter_context(intervene(model, *changes.edits))
        stack.enter_context(standing.reading(changed, attended))
        logits = changed(ids.to(model.device), use_cache=False).logits
    alpha = np.stack([sinks.score(each) for each in received])
    return Passed(alpha, z, streams, np.empty(0), logits)


@contextmanager
def _watched(model: nn.Module, leaving) -> Iterator[None]:
    """`leaving(block, h)` for the stream that leaves every block, changed as it is by then."""
    with ExitStack() as stack:
        for index, block in enumerate(decoder_blocks(model)):

            def hook(_: nn.Module, args: tuple, output, index: int = index) -> None:
                leaving(index, unwrap(output).detach())

            stack.callback(block.register_forward_hook(hook).remove)
        yield


def batches(count: int, at_once: int) -> Sequence[slice]:
    """0..count in slices of at most `at_once`."""
    return [slice(at, min(at + at_once, count)) for at in range(0, count, at_once)]


def _nothing() -> Tensor:
    raise AssertionError("no metric is needed to read what sinks write")
