"""pattern = softmax(s·QKᵀ + mask), z = pattern·V and Σ_q pattern, in blocks of queries.

Exact, and never more than one block of queries times all keys in memory. The softmax is that
of every language model read here: logits scaled, then softly capped (Gemma 2, arXiv:2408.00118,
section 2: c·tanh(logits / c)), then masked; the mask carries causality and sliding windows.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Floats in one block of scores: 32 MiB in float32, a few of which are alive at a time.
BLOCK = 2**23

Mask = Bool[Tensor, "_b _h query key"] | Float[Tensor, "_b _h query key"]


class Attended(NamedTuple):
    """What attention leaves behind; `pattern` only where it was asked for."""

    z: Float[Tensor, "batch head query d_head"]
    received: Float[Tensor, "batch head key"]
    pattern: Float[Tensor, "batch head query key"] | None


def attend(
    query: Float[Tensor, "batch head query d_key"],
    key: Float[Tensor, "batch kv_head key d_key"],
    value: Float[Tensor, "batch kv_head key d_head"],
    mask: Mask | None,
    *,
    scaling: float,
    softcap: float | None = None,
    whole: bool = False,
    block: int = BLOCK,
) -> Attended:
    """Attention with what each key received; a mask of None is the causal one.

    Key and value heads are shared by consecutive query heads (Ainslie et al. 2023,
    arXiv:2305.13245). Half precision is computed in float32.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    groups = query.shape[1] // key.shape[1]
    query = query.to(dtype) * scaling
    key = key.to(dtype).repeat_interleave(groups, dim=1)
    value = value.to(dtype).repeat_interleave(groups, dim=1)
    n_keys = key.shape[2]
    received = key.new_zeros(key.shape[:3])
    z, patterns = [], []
    for start, stop in _blocks(query, n_keys, block):
        # Without a mask no query of this block reaches beyond the block's last position.
        reach = n_keys if mask is not None else stop + n_keys - query.shape[2]
        logits = query[:, :, start:stop] @ key[:, :, :reach].mT
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        pattern = torch.softmax(_masked(logits, mask, start, stop), dim=-1)
        z.append(pattern @ value[:, :, :reach])
        received[:, :, :reach] += pattern.sum(dim=2)
        if whole:
            patterns.append(torch.nn.functional.pad(pattern, (0, n_keys - reach)))
    return Attended(torch.cat(z, dim=2), received, torch.cat(patterns, dim=2) if whole else None)


def _blocks(query: Tensor, n_keys: int, block: int) -> Iterator[tuple[int, int]]:
    batch, heads, n_queries, _ = query.shape
    step = max(1, block // (batch * heads * n_keys))
    for start in range(0, n_queries, step):
        yield start, min(start + step, n_queries)


def _masked(logits: Tensor, mask: Tensor | None, start: int, stop: int) -> Tensor:
    if mask is None:
        n_queries, n_keys = logits.shape[-2:]
        allowed = logits.new_ones(n_queries, n_keys, dtype=torch.bool).tril(n_keys - n_queries)
        return logits.masked_fill(~allowed, float("-inf"))
    rows = mask[:, :, start:stop, : logits.shape[-1]]
    if rows.dtype == torch.bool:
        return logits.masked_fill(~rows, float("-inf"))
    return logits + rows
