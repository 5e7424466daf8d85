import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mech.attention import pattern_columns, pattern_rows
from mech.errors import BadInput
from mech.trace import Heads


def naive(query, key, low, high, scaling, softcap, sink):
    """(pattern, lse), one query and one head at a time, from the definition."""
    batch, heads, seq, _ = query.shape
    groups = heads // key.shape[1]
    pattern = np.zeros((batch, heads, seq, seq))
    lse = np.full((batch, heads, seq), -np.inf)
    for b in range(batch):
        for h in range(heads):
            for q in range(seq):
                total = math.exp(sink) if sink is not None else 0.0
                for k in range(low[b, q], high[b, q] + 1):
                    logit = float(query[b, h, q] @ key[b, h // groups, k]) * scaling
                    if softcap is not None:
                        logit = softcap * math.tanh(logit / softcap)
                    pattern[b, h, q, k] = math.exp(logit)
                    total += math.exp(logit)
                if low[b, q] <= high[b, q]:
                    pattern[b, h, q] /= total
                    lse[b, h, q] = math.log(total)
    return pattern, lse


def draw(seed, batch, kv_heads, groups, seq, softcap, sink=None):
    rng = np.random.default_rng(seed)
    query = rng.normal(size=(batch, kv_heads * groups, seq, 5))
    key = rng.normal(size=(batch, kv_heads, seq, 5))
    value = rng.normal(size=(batch, kv_heads, seq, 3))
    low = rng.integers(0, seq, (batch, seq))
    high = rng.integers(-1, seq, (batch, seq))
    pattern, lse = naive(query, key, low, high, 1.3, softcap, sink)
    sinks = None if sink is None else np.full(kv_heads * groups, sink)
    return Heads(query, key, value, lse, low, high, 1.3, softcap, sinks), pattern


@given(
    batch=st.integers(1, 2),
    kv_heads=st.integers(1, 3),
    groups=st.integers(1, 3),
    seq=st.integers(1, 9),
    softcap=st.sampled_from([None, 0.7, 30.0]),
    sink=st.sampled_from([None, 0.4]),
    seed=st.integers(0, 99),
)
def test_rows_and_columns_are_the_definition(batch, kv_heads, groups, seq, softcap, sink, seed):
    heads, pattern = draw(seed, batch, kv_heads, groups, seq, softcap, sink)
    some = np.random.default_rng(seed).integers(0, seq, 4)
    np.testing.assert_allclose(
        pattern_columns(heads, some), pattern[..., some], atol=1e-14, rtol=1e-13
    )
    np.testing.assert_allclose(
        pattern_rows(heads, some), pattern[:, :, some], atol=1e-14, rtol=1e-13
    )


def test_what_is_outside_the_sequence_is_refused():
    heads, _ = draw(0, 1, 1, 1, 4, None)
    with pytest.raises(BadInput, match="keys 0 to 4 asked of a sequence of 4"):
        pattern_columns(heads, np.array([0, 4]))
    with pytest.raises(BadInput, match="queries -1 to 2 asked of a sequence of 4"):
        pattern_rows(heads, np.array([-1, 2]))


def test_an_unseen_entry_that_would_overflow_is_zero():
    heads, _ = draw(1, 1, 1, 1, 4, None)
    heads = heads._replace(query=heads.query * 1e4, lse=np.full((1, 1, 4), -1e6))
    seen = (heads.low[..., None] <= np.arange(4)) & (np.arange(4) <= heads.high[..., None])
    assert not pattern_columns(heads, np.arange(4))[~seen[:, None]].any()
