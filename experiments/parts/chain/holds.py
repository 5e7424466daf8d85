"""Mediators held at what they are in the dense model, while something before them is changed.

w_s[q] = A[q, s] is what query q pays to sink s and v_s its value, as in `mech.edits`; w°, v° are
the dense model's, kept from a pass of its own. A sink's own query is left alone.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from mech.blocks import decoder_blocks, unwrap
from mech.edits import Edit, Z
from mech.reach import Seen, Where, written

LEAST = 1e-4  # of a query's attention that is left for other keys, where it is divided by

Stream = Callable[[Float[Tensor, "batch seq d_model"]], Float[Tensor, "batch seq d_model"]]
"""What replaces the stream that leaves a block."""


@dataclass(frozen=True)
class HoldSinks:
    """A'[q, s] = w°_s[q], and A'[q, k] = A[q, k] (1 - Σ_s w°_s[q]) / (1 - Σ_s w_s[q]) elsewhere.

    The sinks get the dense model's share of attention, the other keys share what is left in the
    proportions that they have now. Values are those of the changed model.
    """

    where: Where
    weight: Mapping[int, Float[Tensor, "batch head query sink"]] = field(repr=False)

    def __call__(self, z: Z, seen: Seen) -> Z:
        now, then = written(seen, self.where), self.weight[seen.layer]
        left = (1 - now.weight.sum(-1, keepdim=True)).clamp(min=LEAST)
        keep = (1 - then.sum(-1, keepdim=True)).clamp(min=0) / left
        return (keep * (z - now.weight @ now.value) + then @ now.value).to(z.dtype)


@dataclass(frozen=True)
class HoldTags:
    """z' = z - Σ_s w_s v_s + Σ_s w°_s v°_s: what sinks write is what they wrote in the dense model.

    The sinks of the heads `absent` (None: of all) are blocked and write nothing now: there
    z' = z + Σ_s w°_s v°_s.
    """

    where: Where
    tag: Mapping[int, Float[Tensor, "batch head query d_head"]] = field(repr=False)
    absent: tuple[int, ...] | None = ()

    def __call__(self, z: Z, seen: Seen) -> Z:
        z = z + self.tag[seen.layer].to(z.dtype)
        if self.absent is None:
            return z
        now = written(seen, self.where)
        writes = now.weight @ now.value
        writes[:, list(self.absent)] = 0
        return z - writes.to(z.dtype)


@dataclass(frozen=True)
class Changes:
    """Edits of heads, and by block the changes of the stream that leaves it, in their order."""

    edits: tuple[Edit, ...] = ()
    streams: Mapping[int, Sequence[Stream]] = field(default_factory=dict)

    def __add__(self, other: "Changes") -> "Changes":
        """Ours first, then theirs."""
        blocks = {*self.streams, *other.streams}
        both = {b: (*self.streams.get(b, ()), *other.streams.get(b, ())) for b in sorted(blocks)}
        return Changes((*self.edits, *other.edits), both)


def put(
    mask: Bool[Tensor, "batch seq d_model"], value: Float[Tensor, "batch seq d_model"]
) -> Stream:
    """h' = value where the mask is true, h elsewhere."""
    return lambda h: torch.where(mask, value.to(h.dtype), h)


def erased(
    basis: Float[Tensor, "k d_model"],
    mean: Float[Tensor, " d_model"],
    at: Bool[Tensor, "batch seq"],
) -> Stream:
    """h' = h - (h - mean) Bᵀ B at the tokens `at`, B of orthonormal rows: along them the mean's.

    Massive tokens are best left out: nearly any direction holds some of a massive number.
    """
    return lambda h: h - at[..., None] * ((h - mean) @ basis.mT @ basis).to(h.dtype)


def held_along(basis: Float[Tensor, "k d_model"], along: Float[Tensor, "batch seq k"]) -> Stream:
    """h' = h + (a° - h Bᵀ) B: along the orthonormal rows B the coordinates are the dense a°."""
    return lambda h: h + ((along - h @ basis.mT) @ basis).to(h.dtype)


@contextmanager
def streaming(model: PreTrainedModel, by_block: Mapping[int, Sequence[Stream]]):
    """Inside, the stream that leaves a block is changed before anything reads it."""
    blocks = decoder_blocks(model)
    with ExitStack() as stack:
        for block, changes in by_block.items():
            handle = blocks[block].register_forward_hook(_hook(changes))
            stack.callback(handle.remove)
        yield model


def _hook(changes: Sequence[Stream]):
    def hook(_: object, args: tuple, output: Tensor | tuple) -> Tensor | tuple:
        h = unwrap(output)
        for change in changes:
            h = change(h)
        return (h, *output[1:]) if isinstance(output, tuple) else h

    return hook
