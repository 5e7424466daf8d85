"""What attention and what the MLP of a block add to the stream, whatever the family.

No name of a module is known here. Of the block's direct children, the one inside which attention
ran gives the attention write, and the last one to run gives the MLP write; a child that is given
that very tensor (a norm after the sublayer: Gemma 2 and 3, OLMo 2; a dropout: GPT-NeoX, Phi-3)
hands on the write. That these are the writes is not believed but checked: they must add up.
"""

import torch
from torch import Tensor

from mech.blocks import unwrap

# Entries compared at a time.
CHUNK = 2**20


class Writes:
    """attn + mlp = resid_post - resid_pre, found while one block runs."""

    def __init__(self) -> None:
        self.attn: Tensor | None = None
        self.mlp: Tensor | None = None

    def follow(self, given: object, output: object) -> None:
        """A child has run, after attention did: what it was given, and what it returned."""
        if not isinstance(output, (Tensor, tuple)):
            return
        if self.attn is None or given is self.attn:
            self.attn = unwrap(output)
        else:
            self.mlp = unwrap(output)

    def found(self, pre: Tensor, post: Tensor) -> tuple[Tensor, Tensor] | None:
        """(attn_write, mlp_write), or None where they do not add up to rounding."""
        if self.attn is None or self.mlp is None:
            return None
        if not self.attn.numel() == self.mlp.numel() == pre.numel() == post.numel():
            return None
        attn, mlp = self.attn.reshape(pre.shape), self.mlp.reshape(pre.shape)
        return (attn, mlp) if _adds_up(pre, attn, mlp, post) else None


def _adds_up(pre: Tensor, attn: Tensor, mlp: Tensor, post: Tensor) -> bool:
    # Two sums in the model's precision and two here, each within half an eps of a partial sum
    # that is at most |pre| + |attn| + |mlp|.
    eps = torch.finfo(post.dtype).eps
    wide = torch.promote_types(post.dtype, torch.float32)
    flat = (x.flatten().split(CHUNK) for x in (pre, attn, mlp, post))
    for parts in zip(*flat, strict=True):
        a, b, c, whole = (part.to(wide) for part in parts)
        slack = (a.abs() + b.abs() + c.abs()) * (2.5 * eps)
        if not ((a + b + c - whole).abs() <= slack).all():
            return False
    return True
