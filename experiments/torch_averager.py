"""The averaging transformer in plain PyTorch, one seed at a time: what the vmapped training is
measured against.

Dense attention in both layers, as in `toy.transformer.Averager`; the arithmetic of one seed on
one minibatch is all that a step does.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Start = Mapping[str, np.ndarray]
"""One seed's weights by name."""


class Minibatch(NamedTuple):
    """Sequences, the positions (from 1) of [SEP] and of the read-out, and the targets."""

    x: Tensor
    t: Tensor
    last: Tensor
    target: Tensor


def minibatch(x: np.ndarray, t: np.ndarray, last: np.ndarray, target: np.ndarray) -> Minibatch:
    """The same numbers as tensors."""
    return Minibatch(*(torch.from_numpy(np.array(field)) for field in (x, t, last, target)))


def tensors(start: Start) -> dict[str, Tensor]:
    """The weights as tensors that gather gradients."""
    return {name: torch.from_numpy(np.array(w)).requires_grad_() for name, w in start.items()}


def output(weights: Mapping[str, Tensor], batch: Minibatch) -> Float[Tensor, " batch"]:
    """f(x), from the definition."""
    seq = batch.x.shape[1]
    sep = torch.arange(1, seq + 1)[None] == batch.t[:, None]
    number = torch.where(sep, weights["s_num"], batch.x)
    tag = torch.where(sep, -weights["s_tag"], -torch.ones(()))
    embedding = torch.stack([number, tag], dim=-1)
    later = torch.ones(seq, seq, dtype=torch.bool).triu(1)

    scores = (embedding @ embedding.mT).masked_fill(later, -torch.inf)
    stream = embedding + scores.softmax(dim=-1) @ (embedding @ weights["W_V1"])
    scores = (stream @ weights["W_Q2"]) @ (stream @ weights["W_K2"]).mT
    pattern = scores.masked_fill(later, -torch.inf).softmax(dim=-1)
    value = (pattern @ (stream @ weights["W_V2"]))[..., 0]
    return value.gather(1, (batch.last - 1)[:, None])[:, 0]


def train(
    starts: Sequence[Start], batches: Sequence[Minibatch], learning_rate: float
) -> Float[np.ndarray, "seed step"]:
    """Adam on every seed by itself, one seed after the other; each step's loss."""
    losses = np.zeros((len(starts), len(batches)), np.float32)
    for seed, start in enumerate(starts):
        weights = tensors(start)
        rule = torch.optim.Adam(weights.values(), lr=learning_rate)
        for step, batch in enumerate(batches):
            rule.zero_grad()
            loss = (output(weights, batch) - batch.target).square().mean()
            loss.backward()
            rule.step()
            losses[seed, step] = loss.item()
    return losses
