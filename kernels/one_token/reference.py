"""The definitions: plain PyTorch, new tensors out."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Stream = Float[Tensor, "batch d_model"]


def add_norm(
    resid: Stream, delta: Stream, weight: Float[Tensor, " d_model"], eps: float
) -> tuple[Stream, Stream]:
    """h = resid + delta, and x = w ∘ h / √(mean h² + ε): RMSNorm (Zhang, Sennrich 2019, eq. 4)."""
    h = resid + delta
    return h, weight * h * (h.square().mean(-1, keepdim=True) + eps).rsqrt()


def gate(gated: Float[Tensor, "batch d_mlp"], up: Float[Tensor, "batch d_mlp"]) -> Tensor:
    """SiLU(g) ∘ u, SiLU(g) = g / (1 + e⁻ᵍ): SwiGLU's product (Shazeer 2020, eq. 6)."""
    return torch.nn.functional.silu(gated) * up


def rotated(
    x: Float[Tensor, "batch heads d_head"], angles: Float[Tensor, "batch 2 half"]
) -> Float[Tensor, "batch heads d_head"]:
    """(a cos - b sin, b cos + a sin) of the halves a, b of every head; angles hold cos, sin.

    RoFormer (Su et al. 2021, eq. 34), with the pairs a half apart as Hugging Face stores them.
    """
    cos, sin = angles[:, None, 0], angles[:, None, 1]
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def attend(
    q: Float[Tensor, "batch n_heads d_head"],
    k: Float[Tensor, "batch n_kv d_head"],
    v: Float[Tensor, "batch n_kv d_head"],
    angles: Float[Tensor, "batch 2 half"],
    keys: Float[Tensor, "batch n_kv room d_head"],
    values: Float[Tensor, "batch n_kv room d_head"],
    length: int,
    seen: Bool[Tensor, "batch room"],
    scale: float,
) -> Float[Tensor, "batch n_heads d_head"]:
    """softmax(scale · q Kᵀ) V of one query a sequence; q and k rotated first.

    k and v are written into `keys` and `values` at place `length`, and the places up to it that
    are `seen` are attended to; query head i reads group ⌊i n_kv / n_heads⌋. `seen` is read below
    `length` only: a token always sees itself.
    """
    keys[:, :, length] = rotated(k, angles).to(keys.dtype)
    values[:, :, length] = v.to(values.dtype)
    group = q.shape[1] // k.shape[1]
    past = slice(0, length + 1)
    wide = keys[:, :, past].to(q.dtype).repeat_interleave(group, 1)
    scores = scale * (wide @ rotated(q, angles)[..., None]).squeeze(-1)
    hidden = ~seen[:, None, past]
    hidden[..., length] = False
    pattern = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    mixed = values[:, :, past].to(q.dtype).repeat_interleave(group, 1)
    return (pattern[..., None, :] @ mixed).squeeze(-2)
