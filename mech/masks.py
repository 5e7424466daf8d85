"""The mask of a language model as one interval of keys a query, instead of T × T booleans.

Causal masks, sliding windows, chunks and padding let query q see the keys low_q ≤ k ≤ high_q and
no other. Every row is checked to be such an interval; a mask that is not is refused.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers.masking_utils import causal_mask_function, sdpa_mask

from mech.errors import BadInput

# Booleans of the mask in memory at a time.
BLOCK = 2**22

# Entry 0 of the last axis is low, entry 1 is high; high < low sees nothing.
Intervals = Int[Tensor, "#batch 1 query 2"]


def interval_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable = causal_mask_function,
    attention_mask: Tensor | None = None,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **_: object,
) -> Intervals:
    """[low_q, high_q] of every row of `mask_function`, for transformers' AttentionMaskInterface.

    The function is evaluated in blocks of rows, of which only the ends are kept, and meets the
    2-D padding mask as interval meets interval; padding queries see nothing. Raises BadInput on
    a row or a padding mask that has a hole.
    """
    at = torch.arange(q_length, device=device) + (q_offset - kv_offset)
    if mask_function is causal_mask_function:
        found = _pair(torch.zeros_like(at), at.clamp(max=kv_length - 1))[None]
    else:
        step = max(1, BLOCK // (batch_size * kv_length))
        parts = []
        for start in range(0, q_length, step):
            rows = sdpa_mask(
                batch_size,
                min(step, q_length - start),
                kv_length,
                q_offset=q_offset + start,
                kv_offset=kv_offset,
                mask_function=mask_function,
                allow_is_causal_skip=False,
                use_vmap=use_vmap,
                device=device,
            )
            assert rows is not None  # it may only be skipped where that is allowed
            # A mask that knows nothing of the sequence is expanded over the batch.
            parts.append(_ends(rows[:1, 0] if rows.stride(0) == 0 else rows[:, 0], start))
        found = torch.cat(parts, dim=1)
    if attention_mask is not None:
        # What lies beyond the padding mask counts as padding, as transformers has it.
        width = kv_offset + kv_length
        real = torch.nn.functional.pad(attention_mask.bool(), (0, width - attention_mask.shape[1]))
        found = _unpadded(found, real[:, kv_offset:], at)
    return found[:, None]


def dense_intervals(mask: Tensor) -> Intervals:
    """[low_q, high_q] of a mask of [batch, 1, query, key]: booleans, or 0 and −∞ to be added.

    Raises BadInput on a mask that differs between heads, adds anything else (a bias), or has a
    row with a hole.
    """
    if mask.shape[1] != 1:
        raise BadInput(
            f"the attention mask differs between heads (shape {tuple(mask.shape)}): it cannot be "
            "read as one interval of keys a query"
        )
    step = max(1, BLOCK // (mask.shape[0] * mask.shape[-1]))
    parts = [
        _ends(_seen(mask[:, 0, start : start + step]), start)
        for start in range(0, mask.shape[2], step)
    ]
    return torch.cat(parts, dim=1)[:, None]


def _seen(rows: Tensor) -> Tensor:
    if rows.dtype == torch.bool:
        return rows
    # Any number so low that its exponential is zero stands for −∞.
    hidden = rows <= torch.finfo(rows.dtype).min / 2
    if not (hidden | (rows == 0)).all():
        raise BadInput(
            "the attention mask adds numbers other than 0 and −∞ (a bias): such a pattern cannot "
            "be read yet"
        )
    return ~hidden


def padding(tokens: Tensor, attention_mask: Tensor | None) -> Bool[Tensor, "batch seq"]:
    """attention_mask ≠ 0, or everything without one: which tokens are real.

    Raises BadInput on a mask of another shape or with other numbers than 0 and 1, on a sequence
    without a token, and on padding between tokens.
    """
    if attention_mask is None:
        return torch.ones_like(tokens, dtype=torch.bool)
    if attention_mask.shape != tokens.shape:
        raise BadInput(
            f"attention_mask has the shape {tuple(attention_mask.shape)} and the tokens "
            f"{tuple(tokens.shape)}: give one number a token, 1 for a token and 0 for padding"
        )
    if not ((attention_mask == 0) | (attention_mask == 1)).all():
        raise BadInput("attention_mask holds other numbers than 1 (a token) and 0 (padding)")
    real = attention_mask.bool()
    if not real.any(dim=1).all():
        empty = int((~real.any(dim=1)).nonzero()[0])
        raise BadInput(f"sequence {empty} is nothing but padding: leave it out")
    begins = torch.nn.functional.pad(real.int(), (1, 0)).diff(dim=1) == 1
    if (begins.sum(dim=1) > 1).any():
        raise BadInput("attention_mask has padding between tokens: pad on the left or the right")
    return real


def _unpadded(found: Tensor, real: Tensor, at: Tensor) -> Tensor:
    ends = _ends(real[:, None])
    low = torch.maximum(found[..., 0], ends[..., 0])
    high = torch.minimum(found[..., 1], ends[..., 1])
    query = real.gather(1, at.clamp(0, real.shape[1] - 1).expand(len(real), -1))
    return _pair(torch.where(query, low, 0), torch.where(query, high, -1))


def _ends(rows: Bool[Tensor, "batch row key"], start: int = 0) -> Int[Tensor, "batch row 2"]:
    """First and last key that each row sees, 0 and −1 where it sees none; `start` is row 0."""
    bytes_ = rows.to(torch.uint8)
    count = rows.sum(dim=-1)
    low = bytes_.argmax(dim=-1)
    high = torch.where(count > 0, rows.shape[-1] - 1 - bytes_.flip(-1).argmax(dim=-1), -1)
    holed = (high - low + 1 != count).nonzero()
    if len(holed):
        batch, row = holed[0].tolist()
        raise BadInput(
            f"the attention mask of sequence {batch} has a hole: query {start + row} sees "
            f"{int(count[batch, row])} of the keys {int(low[batch, row])} to "
            f"{int(high[batch, row])}; only masks that are one interval of keys can be read"
        )
    return _pair(low, high)


def _pair(low: Tensor, high: Tensor) -> Tensor:
    return torch.stack([low, high], dim=-1)
