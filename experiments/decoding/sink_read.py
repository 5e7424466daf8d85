"""One pass over a model's tokens: losses, sinks, tags, massive activations, what was read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from bridge.evaluate import token_losses
from bridge.sink_tokens import KINDS
from experiments import measure
from experiments.decoding.gates import Phase
from experiments.decoding.sink_ways import dense_tokens
from experiments.progress import Advance
from experiments.tags_kept import tags_at
from mech.attention import pattern_rows
from mech.capture import capture_blocks
from mech.errors import BadInput
from mech.probes import massive, sinks
from mech.trace import BlockTrace


class Look(NamedTuple):
    """What a block shows of one group of sequences."""

    found: Bool[np.ndarray, "sequences head key"]
    where: Bool[np.ndarray, "sequences head key"]
    tags: Float[np.ndarray, "sinks d_model"]
    massive: Bool[np.ndarray, "sequences seq d_model"]
    size: Float[np.ndarray, " entries"]


Looks = list[list[Look]]
"""By group of sequences, then by block."""


class Seen(NamedTuple):
    """Of every sequence: nats a token, counts to take shares of, shares of bytes read by kind.

    hits: entries of the dense model's set that are there; dense, found: of either set.
    tags, sizes: sums over the dense model's entries of cosines and of h' / h.
    """

    nll: Float[np.ndarray, " sequences"]
    first: Float[np.ndarray, "sequences 3"]
    later: Float[np.ndarray, "sequences 3"]
    massive: Float[np.ndarray, "sequences 3"]
    tags: Float[np.ndarray, "sequences 2"]
    sizes: Float[np.ndarray, "sequences 2"]
    read: Float[np.ndarray, "sequences 3"]
    counts: Float[np.ndarray, "sequences 3"]


class Text(NamedTuple):
    """What is read, what the dense model's tokens are, and from where on tokens are sparse."""

    ids: Int[Tensor, "sequences seq"]
    labels: Int[Tensor, "sequences seq"]
    sparse_from: float

    @property
    def first(self) -> int:
        """The first sparsified token."""
        return int(self.ids.shape[1] * self.sparse_from)


def look(
    model: PreTrainedModel,
    weights: Sequence[np.ndarray],
    text: Text,
    dense: Looks | None,
    advance: Advance,
    phase: Phase | None = None,
    way: str = "plain",
) -> tuple[Looks, Float[np.ndarray, " sequences"], Float[np.ndarray, "sequences seq"]]:
    """(looks, nats a token by sequence, weights read by token); `dense` None: the dense model."""
    looks, nll, read = [], [], []
    begin = 0
    for number, group in enumerate(text.ids.split(measure.AT_ONCE)):
        whole = dense_tokens(way, text.labels[begin : begin + len(group)])
        whole[:, : text.first] = True
        if phase is not None:
            phase.begin(whole)
        before = None if dense is None else dense[number]
        with _last_state(model) as states:
            looks.append(
                capture_blocks(
                    model, group, lambda b, before=before: _look(b, weights, text.first, before)
                )
            )
        nll.append(_losses(model, states[0], group, text.first))
        read.append(phase.read.numpy() if phase is not None else np.zeros(group.shape))
        begin += len(group)
        advance("sinks, tags, losses")
    return looks, np.concatenate(nll), np.concatenate(read)


def seen(
    text: Text,
    whole: int,
    dense: Looks,
    found: tuple[Looks, Float[np.ndarray, " sequences"], Float[np.ndarray, "sequences seq"]],
) -> Seen:
    """The counts of a model beside the dense model's; `whole`: weights of the gated linears."""
    looks, nll, read = found
    groups = [_counts(a, b) for a, b in zip(looks, dense, strict=True)]
    first, later, big, tags, sizes = (
        np.concatenate(part) for part in zip(*groups, strict=True)
    )  # fmt: skip
    sparse = np.arange(text.ids.shape[1]) >= text.first
    kinds = [(text.labels.numpy() == kind) & sparse for kind in range(len(KINDS))]
    shares = [(read * kind).sum(axis=1) / whole for kind in kinds]
    return Seen(
        nll, first, later, big, tags, sizes,
        np.stack(shares, axis=1), np.stack([kind.sum(axis=1) for kind in kinds], axis=1),
    )  # fmt: skip


def check_head(model: PreTrainedModel, ids: Int[Tensor, " seq"]) -> None:
    """Raises BadInput where logits are more than the head's product with the last state."""
    with _last_state(model) as states:
        known = token_losses(model, ids, context=len(ids), stride=len(ids)).nll.mean()
    ours = _losses(model, states[0], ids[None], 0)[0]
    if abs(float(known) - ours) > 1e-3:
        raise BadInput(
            f"{type(model).__name__} does more to its last state than the output head's product: "
            "its losses cannot be read beside its sinks"
        )


def score(block: BlockTrace, first: int) -> Float[np.ndarray, "sequences head key"]:
    """α over the queries from `first` on, those that were sparsified; equation 1 for first = 0."""
    if first == 0:
        return measure.block_score(block)
    seq = block.reach.shape[-1]
    received = pattern_rows(block.heads, np.arange(first, seq)).sum(axis=2)
    return received / (seq - np.maximum(np.arange(seq), first)).astype(received.dtype)


@contextmanager
def _last_state(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """What the output head is given, one entry a pass."""
    states: list[Tensor] = []

    def keep(_: nn.Module, __: Any, out: Any) -> None:
        states.append(out.last_hidden_state)

    hook = model.base_model.register_forward_hook(keep)
    try:
        yield states
    finally:
        hook.remove()


def _look(
    block: BlockTrace, weights: Sequence[np.ndarray], first: int, before: list[Look] | None
) -> Look:
    alpha = score(block, first)
    found = sinks.sinks(alpha, measure.EPSILON)
    counted = sinks.guarded(alpha.shape[-1])
    counted[0] = True
    where = found & counted if before is None else before[block.layer].where
    big = massive.massive_entries(block.resid_post, block.real, massive.RATIO)[0]
    at = big if before is None else before[block.layer].massive
    tags = tags_at(block, weights[block.layer], where)
    return Look(found, where, tags, big, block.resid_post[at])


def _losses(
    model: PreTrainedModel, states: Tensor, ids: Int[Tensor, "sequences seq"], first: int
) -> Float[np.ndarray, " sequences"]:
    """Mean nats of the tokens that were predicted from token `first` on, by sequence."""
    head: Any = model.get_output_embeddings()
    means = []
    for state, tokens in zip(states, ids.to(states.device), strict=True):
        with torch.no_grad():
            logits = head(state[first:-1]).float()
        means.append(float(nn.functional.cross_entropy(logits, tokens[first + 1 :])))
    return np.array(means)


def _counts(looks: list[Look], dense: list[Look]) -> tuple[np.ndarray, ...]:
    """By sequence: first and later sinks, massive activations, tags, sizes."""
    n = len(dense[0].found)
    first, later, big = (np.zeros((n, 3)) for _ in range(3))
    tags, sizes = np.zeros((n, 2)), np.zeros((n, 2))
    for now, then in zip(looks, dense, strict=True):
        allowed = sinks.guarded(now.found.shape[-1])
        first += _three(now.found[..., :1], then.found[..., :1])
        later += _three(now.found[..., allowed], then.found[..., allowed])
        big += _three(now.massive, then.massive)
        norm = np.linalg.norm(now.tags, axis=1) * np.linalg.norm(then.tags, axis=1)
        inner = (now.tags * then.tags).sum(axis=1)
        cosine = np.divide(inner, norm, out=np.zeros_like(inner), where=norm > 0)
        tags += _sums(cosine, np.nonzero(then.where)[0], n)
        sizes += _sums(now.size / then.size, np.nonzero(then.massive)[0], n)
    return first, later, big, tags, sizes


def _three(found: np.ndarray, dense: np.ndarray) -> Float[np.ndarray, "sequences 3"]:
    axes = tuple(range(1, found.ndim))
    return np.stack([m.sum(axis=axes) for m in (found & dense, dense, found)], axis=1)


def _sums(
    values: Float[np.ndarray, " entries"], sequence: Int[np.ndarray, " entries"], n: int
) -> Float[np.ndarray, "sequences 2"]:
    return np.stack([np.bincount(sequence, values, n), np.bincount(sequence, minlength=n)], axis=1)
