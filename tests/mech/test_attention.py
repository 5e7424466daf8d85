import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mech.attention import attend


def naive(query, key, value, mask, scaling, softcap):
    """One query and one head at a time, from the definition."""
    batch, heads, n_queries, _ = query.shape
    n_keys, groups = key.shape[2], query.shape[1] // key.shape[1]
    pattern = torch.zeros(batch, heads, n_queries, n_keys, dtype=query.dtype)
    for b in range(batch):
        for h in range(heads):
            for q in range(n_queries):
                weights = []
                for k in range(n_keys):
                    logit = float(query[b, h, q] @ key[b, h // groups, k]) * scaling
                    if softcap is not None:
                        logit = softcap * math.tanh(logit / softcap)
                    seen = k <= q + n_keys - n_queries if mask is None else bool(mask[b, 0, q, k])
                    weights.append(math.exp(logit) if seen else 0.0)
                pattern[b, h, q] = torch.tensor(weights, dtype=query.dtype) / sum(weights)
    return pattern


@given(
    batch=st.integers(1, 2),
    kv_heads=st.integers(1, 3),
    groups=st.integers(1, 3),
    seq=st.integers(1, 9),
    block=st.integers(1, 200),
    softcap=st.sampled_from([None, 0.7, 30.0]),
    window=st.sampled_from([None, 1, 3]),
    seed=st.integers(0, 99),
)
def test_attention_is_its_definition(batch, kv_heads, groups, seq, block, softcap, window, seed):
    draw = torch.Generator().manual_seed(seed)
    shape = (batch, kv_heads * groups, seq, 5)
    query = torch.randn(shape, generator=draw, dtype=torch.float64)
    key = torch.randn(batch, kv_heads, seq, 5, generator=draw, dtype=torch.float64)
    value = torch.randn(batch, kv_heads, seq, 3, generator=draw, dtype=torch.float64)
    mask = None
    if window is not None:
        distance = torch.arange(seq)[:, None] - torch.arange(seq)
        mask = ((distance >= 0) & (distance < window)).expand(batch, 1, seq, seq)
    pattern = naive(query, key, value, mask, 1.3, softcap)
    found = attend(query, key, value, mask, scaling=1.3, softcap=softcap, whole=True, block=block)
    spread = value.repeat_interleave(groups, dim=1)
    torch.testing.assert_close(found.pattern, pattern, atol=1e-14, rtol=1e-13)
    torch.testing.assert_close(found.received, pattern.sum(dim=2), atol=1e-13, rtol=1e-13)
    torch.testing.assert_close(found.z, pattern @ spread, atol=1e-13, rtol=1e-13)


def test_an_additive_mask_is_added_after_the_cap(generator):
    query, key, value = torch.randn(3, 1, 2, 4, 6, generator=generator, dtype=torch.float64)
    allowed = torch.ones(4, 4, dtype=torch.bool).tril()[None, None]
    additive = torch.zeros(1, 1, 4, 4).masked_fill(~allowed, torch.finfo(torch.float32).min)
    asked = {"scaling": 0.4, "softcap": 1.5, "whole": True}
    torch.testing.assert_close(
        attend(query, key, value, additive.double(), **asked).pattern,
        attend(query, key, value, allowed, **asked).pattern,
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(generator, dtype):
    query, key, value = torch.randn(3, 1, 2, 50, 6, generator=generator).to(dtype)
    half = attend(query, key, value, None, scaling=1.0)
    full = attend(query.float(), key.float(), value.float(), None, scaling=1.0)
    assert half.z.dtype == torch.float32
    torch.testing.assert_close(half.received, full.received, atol=0, rtol=0)


def test_no_pattern_is_kept_unless_asked(generator):
    query, key, value = torch.randn(3, 1, 2, 4, 6, generator=generator)
    assert attend(query, key, value, None, scaling=1.0).pattern is None
