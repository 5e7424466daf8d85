import itertools
from typing import Any

import pytest
import torch
from transformers.masking_utils import (
    and_masks,
    bidirectional_mask_function,
    causal_mask_function,
    chunked_causal_mask_function,
    or_masks,
    packed_sequence_compatibility_function,
    sdpa_mask,
    sliding_window_causal_mask_function,
)

from mech import masks
from mech.errors import BadInput
from mech.masks import dense_intervals, interval_mask, padding


def booleans(*args: Any, **asked: Any) -> torch.Tensor:
    """transformers' own mask, never None for “causal”."""
    found = sdpa_mask(*args, allow_is_causal_skip=False, **asked)
    assert found is not None
    return found


def dense(intervals, n_keys):
    """The booleans that these intervals stand for."""
    keys = torch.arange(n_keys)
    return (intervals[..., :1] <= keys) & (keys <= intervals[..., 1:])


def padded(batch, seq, sides, generator):
    """A padding mask with some tokens of every sequence padded on its side."""
    real = torch.ones(batch, seq, dtype=torch.bool)
    for row, side in enumerate(sides[:batch]):
        count = int(torch.randint(0, seq, (1,), generator=generator))
        real[row, :count] = side != "left" or count == 0
        real[row, seq - count :] &= side != "right" or count == 0
    return real


def some_function(name, real):
    batch, seq = real.shape
    if name == "causal":
        return causal_mask_function
    if name == "both ways":
        return bidirectional_mask_function
    if name == "window":
        return sliding_window_causal_mask_function(3)
    if name == "chunk":
        return chunked_causal_mask_function(4, (~real).int().cumprod(-1).sum(-1))
    positions = torch.stack(
        [torch.cat([torch.arange(n), torch.arange(seq - n)]) for n in range(1, batch + 1)]
    )
    which = torch.stack([(torch.arange(seq) >= n).long() for n in range(1, batch + 1)])
    return packed_sequence_compatibility_function(causal_mask_function, positions, which)


@pytest.mark.parametrize("name", ["causal", "window", "chunk", "packed", "both ways"])
@pytest.mark.parametrize("block", [1, 50, 1000])
def test_intervals_are_the_mask(name, block, monkeypatch):
    monkeypatch.setattr(masks, "BLOCK", block)
    sides = list(itertools.product(["left", "right", "none"], repeat=3))
    for seed, chosen in enumerate(sides):
        generator = torch.Generator().manual_seed(seed)
        batch, seq = seed % 3 + 1, 3 + seed % 11
        real = padded(batch, seq, chosen, generator)
        function = some_function(name, real)
        asked = {"batch_size": batch, "q_length": seq, "kv_length": seq, "mask_function": function}
        expected = booleans(**asked)
        assert torch.equal(dense(interval_mask(**asked), seq).expand_as(expected), expected)
        # With padding, which also attends to nothing.
        expected = booleans(**asked, attention_mask=real) & real[:, None, :, None]
        assert torch.equal(dense(interval_mask(**asked, attention_mask=real), seq), expected)


def test_a_cache_shifts_queries_and_keys():
    """Two new queries after five tokens, of which the cache keeps the last four."""
    asked: dict[str, Any] = {
        "batch_size": 2,
        "q_length": 2,
        "kv_length": 6,
        "q_offset": 5,
        "kv_offset": 1,
    }
    real = torch.ones(2, 7, dtype=torch.bool)
    real[1, :3] = False
    for function in (causal_mask_function, sliding_window_causal_mask_function(4)):
        asked["mask_function"] = function
        expected = booleans(**asked, attention_mask=real)
        assert torch.equal(dense(interval_mask(**asked, attention_mask=real), 6), expected)


def test_a_function_that_only_vmap_can_evaluate():
    def scalar(batch_idx, head_idx, q_idx, kv_idx):
        return torch.stack([kv_idx <= q_idx, kv_idx > q_idx - 2]).all()

    found = interval_mask(1, 5, 5, mask_function=scalar, use_vmap=True)
    expected = booleans(1, 5, 5, mask_function=sliding_window_causal_mask_function(2))
    assert torch.equal(dense(found, 5), expected)


def test_a_mask_with_a_hole_is_refused(monkeypatch):
    monkeypatch.setattr(masks, "BLOCK", 12)

    def sinks_too(batch_idx, head_idx, q_idx, kv_idx):
        return kv_idx < 1

    streaming = and_masks(
        causal_mask_function, or_masks(sliding_window_causal_mask_function(2), sinks_too)
    )
    wanted = r"sequence 0 has a hole: query 3 sees 3 of the keys 0 to 3"
    with pytest.raises(BadInput, match=wanted):
        interval_mask(1, 6, 6, mask_function=streaming)
    with pytest.raises(BadInput, match=wanted):
        dense_intervals(booleans(1, 6, 6, mask_function=streaming))


@pytest.mark.parametrize("low", [float("-inf"), torch.finfo(torch.float16).min])
def test_a_dense_mask_is_read_whether_boolean_or_added(low):
    seen = booleans(2, 6, 6, mask_function=sliding_window_causal_mask_function(2))
    added = torch.zeros(seen.shape, dtype=torch.float16).masked_fill(~seen, low)
    for mask in (seen, added):
        assert torch.equal(dense(dense_intervals(mask), 6), seen)


def test_a_bias_and_masks_by_head_are_refused():
    with pytest.raises(BadInput, match="a bias"):
        dense_intervals(torch.full((1, 1, 3, 3), -2.0))
    with pytest.raises(BadInput, match=r"differs between heads \(shape \(1, 2, 3, 3\)\)"):
        dense_intervals(torch.ones(1, 2, 3, 3, dtype=torch.bool))


@pytest.mark.parametrize(
    ("mask", "wanted"),
    [
        ([[1, 1, 1], [1, 0, 1]], "padding between tokens"),
        ([[1, 1, 1], [0, 0, 0]], "sequence 1 is nothing but padding"),
        ([[1, 1, 1], [2, 1, 1]], "other numbers than 1"),
        ([[1, 1], [1, 1]], r"shape \(2, 2\) and the tokens \(2, 3\)"),
    ],
)
def test_padding_that_is_none_is_refused(mask, wanted):
    with pytest.raises(BadInput, match=wanted):
        padding(torch.zeros(2, 3, dtype=torch.long), torch.tensor(mask))


def test_padding_on_either_side_is_read():
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]])
    assert torch.equal(padding(torch.zeros(4, 4, dtype=torch.long), mask), mask.bool())
    assert padding(torch.zeros(4, 4, dtype=torch.long), None).all()
