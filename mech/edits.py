"""What sinks write into other tokens, changed: z' = z + Σ_s (w'_s u_s - w_s v_s).

w_s[q] = A[q, s] is the attention that query q pays to sink s, v_s the sink's value, and w_s[q] v_s
the tag before W_O. Every edit is a pure function of a head's output z and of the call that made
it. A sink's own query is left alone: what a token writes into itself marks no other. A model's
weights and its attention are not touched; Block alone acts on the pattern.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from mech.errors import BadInput
from mech.isometry import turned
from mech.reach import Seen, Sinks, Where, Written, masked_rows, tokens_mask, written

Z = Float[Tensor, "batch head query d_head"]


@runtime_checkable
class Edit(Protocol):
    """z ↦ z', at the layers of `where`; the identity elsewhere is `intervene`'s business."""

    @property
    def where(self) -> Where: ...
    def __call__(self, z: Z, seen: Seen) -> Z: ...


@dataclass(frozen=True)
class Scale:
    """w'_s = c w_s, u_s = v_s: the tags c times as strong; 1 changes nothing."""

    where: Where
    c: float

    def __call__(self, z: Z, seen: Seen) -> Z:
        tags = written(seen, self.where)
        return _plus(z, self.where, (self.c - 1) * (tags.weight @ tags.value))


@dataclass(frozen=True)
class Remove:
    """w'_s = 0: the attention stays where it was parked and nothing is written for it."""

    where: Where

    def __call__(self, z: Z, seen: Seen) -> Z:
        return Scale(self.where, 0.0)(z, seen)


@dataclass(frozen=True)
class Mean:
    """w'_s[q] = mean of w_s over the queries that see s, u_s = v_s: a constant in its place."""

    where: Where

    def __call__(self, z: Z, seen: Seen) -> Z:
        tags = written(seen, self.where)
        change = torch.where(tags.sees, _mean(tags), 0.0) - tags.weight
        return _plus(z, self.where, change @ tags.value)


@dataclass(frozen=True)
class Project:
    """z' = z - ⟨z, τ⟩ / ⟨τ, τ⟩ τ with τ[q] = Σ_s w_s[q] v_s: nothing along the tag, from anyone.

    ⟨x, y⟩ = x W_O · y W_O, so that what the head writes into the stream is orthogonal to its tag.
    Remove takes what the sinks wrote; this takes what other keys wrote in the same direction too.
    """

    where: Where

    def __call__(self, z: Z, seen: Seen) -> Z:
        tags = written(seen, self.where)
        tag = tags.weight @ tags.value
        dual = tag @ seen.metric(self.where)
        size = (tag * dual).sum(dim=-1, keepdim=True)
        along = (self.where.heads_of(z) * dual).sum(dim=-1, keepdim=True)
        share = torch.where(size > 0, along / size, 0.0)
        return _plus(z, self.where, -share * tag)


@dataclass(frozen=True)
class RandomDirection:
    """u_s for v_s, w'_s = w_s: in the stream ⟨u_s, u_t⟩ = ⟨v_s, v_t⟩ and ⟨u_s, v_t⟩ = 0.

    So what a head writes for its sinks is as long as before at every token, and orthogonal to all
    its tags. Drawn from normal vectors in the head's space, one a (layer, head, place in the list
    of sinks), whatever the batch (mech/isometry.py). With `added` the tags stay and the random
    ones are subtracted beside them: the control of Remove, as large a change in directions of no
    meaning. Raises BadInput where a sequence's tags leave a head no room for it.
    """

    where: Where
    seed: int = 0
    added: bool = False

    def __call__(self, z: Z, seen: Seen) -> Z:
        tags = written(seen, self.where)
        moved = _elsewhere(tags, seen, self.where, self.seed)
        change = -moved if self.added else moved - tags.value
        return _plus(z, self.where, tags.weight @ change)


@dataclass(frozen=True)
class Swap:
    """w_s with v_p and w_p with v_s: every sink of `where` and its partner exchange their tags.

    `partners` has as many tokens a sequence as `where.sinks`, else BadInput is raised; a sink
    swapped with itself changes nothing.
    """

    where: Where
    partners: Sinks

    def __post_init__(self) -> None:
        if list(map(len, self.partners)) != list(map(len, self.where.sinks)):
            raise BadInput("a swap needs as many partners as sinks, in every sequence")

    def __call__(self, z: Z, seen: Seen) -> Z:
        ours, theirs = (written(seen, where) for where in (self.where, self._other()))
        change = (ours.weight - theirs.weight) @ (theirs.value - ours.value)
        return _plus(z, self.where, change)

    def _other(self) -> Where:
        return Where(self.where.layers, self.partners, self.where.heads)


@dataclass(frozen=True)
class Transplant:
    """w'_s[q] = mean of w_s over the queries that see s, for q in `to`: others carry its tag too.

    `to` holds tokens of each sequence, such as those before the sink, that never saw it. With a
    `seed` what they get points in RandomDirection's direction: the control, for tokens that do
    not carry the tag.
    """

    where: Where
    to: Sinks
    seed: int | None = None

    def __call__(self, z: Z, seen: Seen) -> Z:
        tags = written(seen, self.where)
        here = tokens_mask(self.to, seen)[:, None, :, None]
        given = tags.value
        if self.seed is not None:
            given = _elsewhere(tags, seen, self.where, self.seed)
        more = torch.where(here, _mean(tags), 0.0) @ given
        return _plus(z, self.where, more - torch.where(here, tags.weight, 0.0) @ tags.value)


@dataclass(frozen=True)
class Block:
    """A'[q, k] = A[q, k] / (1 - Σ_s A[q, s]), 0 for k = s ≠ q: the sinks cannot be attended to.

    The softmax is taken again without these keys, in blocks of queries. A query keeps its own
    key, so that no row is empty.
    """

    where: Where

    def __call__(self, z: Z, seen: Seen) -> Z:
        return _plus(z, self.where, masked_rows(seen, self.where))


def _plus(z: Z, where: Where, change: Tensor) -> Z:
    """z + change at the heads of `where`."""
    if where.heads is None:
        return z + change.to(z.dtype)
    changed = z.clone()
    changed[:, list(where.heads)] += change.to(z.dtype)
    return changed


def _mean(tags: Written) -> Float[Tensor, "batch head 1 sink"]:
    count = tags.sees.sum(dim=2, keepdim=True).clamp(min=1)
    return tags.weight.sum(dim=2, keepdim=True) / count


def _elsewhere(
    tags: Written, seen: Seen, where: Where, seed: int
) -> Float[Tensor, "batch head sink d_head"]:
    """A vector of no meaning for every v_s (mech/isometry.py)."""
    generator = torch.Generator().manual_seed(seed * 1009 + seen.layer)
    shape = seen.query.shape[1], tags.value.shape[3]
    # Place by place, for all heads: neither a wider list nor other heads change what is drawn.
    draws = [
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for _ in range(tags.value.shape[2])
    ]
    if not draws:
        return tags.value
    drawn = where.heads_of(torch.stack(draws, dim=1)[None])[0].to(tags.value.device)
    named = tags.sees.any(dim=2)
    return turned(tags.value, named, seen.metric(where), drawn).to(tags.value)
