"""Some of very many entries, in order: what thousands of thresholds are looked up in."""

import torch
from jaxtyping import Float
from torch import Tensor

POOLED = 2**18
"""Entries: the share below one of them is that of all to a standard error of a thousandth."""


def pooled(size: Float[Tensor, "tokens d_in"]) -> Float[Tensor, " entries"]:
    """Sorted: all entries, or `POOLED` of them, drawn uniformly with replacement, seeded.

    Not every so-manieth: a step that divides d_in would meet the same few channels at every token,
    whose sizes are their own, and a step over tokens would meet few of these.
    """
    flat = size.flatten()
    if len(flat) > POOLED:
        drawn = torch.Generator().manual_seed(0)
        flat = flat[torch.randint(len(flat), (POOLED,), generator=drawn)]
    return flat.sort().values
