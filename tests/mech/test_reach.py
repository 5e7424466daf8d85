import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mech.errors import BadInput
from mech.probes.reach import (
    causal_reach,
    count_block,
    countable,
    first_real,
    later_keys,
    null_received,
)
from mech.probes.sinks import guarded, score, sinks


def bounds(real, window=None, chunk=None):
    """The interval of keys that each query of a causal model sees."""
    batch, seq = real.shape
    query = np.broadcast_to(np.arange(seq), (batch, seq))
    first = real.argmax(axis=1)[:, None]
    low = np.broadcast_to(first, (batch, seq)).copy()
    if window:
        low = np.maximum(low, query - window + 1)
    if chunk:
        low = np.maximum(low, query // chunk * chunk)
    return low, np.where(real, query, low - 1)


def uniform(low, high):
    key = np.arange(low.shape[1])
    sees = (key >= low[..., None]) & (key <= high[..., None])
    return sees, sees / np.maximum(sees.sum(axis=-1, keepdims=True), 1)


def reach_of(low, high):
    return uniform(low, high)[0].sum(axis=1)


@given(
    seq=st.integers(2, 90),
    left=st.integers(0, 40),
    right=st.integers(0, 40),
    window=st.sampled_from([None, 1, 5, 30]),
    chunk=st.sampled_from([None, 7]),
)
def test_the_null_is_the_column_sum_of_uniform_attention(seq, left, right, window, chunk):
    left %= seq
    right %= seq - left
    real = np.ones((2, seq), bool)
    real[1, :left] = real[1, seq - right :] = False
    low, high = bounds(real, window, chunk)
    _, pattern = uniform(low, high)
    np.testing.assert_allclose(null_received(low, high, real), pattern.sum(axis=1), atol=1e-12)


@given(seq=st.integers(1, 90), support=st.integers(0, 30))
def test_without_padding_or_window_the_guard_is_the_old_one(seq, support):
    real = np.ones((2, seq), bool)
    expected = guarded(seq, support)
    np.testing.assert_array_equal(later_keys(real, causal_reach(real), support)[1], expected)


@pytest.mark.parametrize("seq", [43, 63, 64, 128])
def test_the_shortest_text_that_is_counted_on(seq):
    """¾ of 0.1 at the first key is the limit of 64 tokens that counting has had."""
    real = np.ones((1, seq), bool)
    null = null_received(*bounds(real), real)
    assert countable(causal_reach(real), null)[0, 0] == (seq >= 64)


@pytest.mark.parametrize("window", [5, 17, 20, 30, 43, 64])
def test_behind_a_window_a_head_without_preference_has_false_sinks_that_are_not_counted(window):
    """The first keys of a window of w are those of a text of w tokens: H_w / w > 0.1 for w < 44."""
    real = np.ones((1, 200), bool)
    low, high = bounds(real, window)
    _, pattern = uniform(low, high)
    reach = reach_of(low, high)
    alpha = score(pattern.sum(axis=1)[:, None], reach)[:, 0]
    assert sinks(alpha)[0, 0] == (window < 44)
    assert sinks(alpha)[0, 1] == (window <= 30)
    assert not sinks(alpha)[countable(reach, null_received(low, high, real))].any()
    # Equation 1 hides them, and real sinks with them: it divides by queries that cannot see.
    assert not sinks(score(pattern.sum(axis=1)[:, None]))[..., guarded(200)].any()


def test_a_sink_behind_a_window_is_seen_by_reach_alone():
    real = np.ones((1, 300), bool)
    low, high = bounds(real, 64)
    sees, pattern = uniform(low, high)
    caught = sees[0][:, 100]
    pattern[0][caught] *= 0.7
    pattern[0][caught, 100] += 0.3
    received, reach = pattern.sum(axis=1)[:, None], reach_of(low, high)
    allowed = countable(reach, null_received(low, high, real))
    found = sinks(score(received, reach))[:, 0] & allowed
    assert np.flatnonzero(found[0]).tolist() == [100]
    # 0.31 over the 64 that see it, and 64 of the 200 that equation 1 counts: 0.099.
    assert not sinks(score(received))[0, 0, 100]


def test_padding_changes_nothing():
    """A short text, padded left or right, counts as it does by itself."""
    rng = np.random.default_rng(0)
    seq, pad = 70, 13
    alone = np.tril(rng.random((3, seq, seq)) ** 8)
    alone /= alone.sum(axis=-1, keepdims=True)
    alone[1, 1:, 0] += 0.5  # a first-token sink, and one later
    alone[2, 11:, 10] += 0.4
    real = np.ones((1, seq), bool)

    def counted(pattern, real):
        received = pattern.sum(axis=1)[None]
        reach = causal_reach(real)
        return count_block(score(received, reach), real, later_keys(real, reach), 0.1)

    plain = counted(alone, real)
    assert plain.first.tolist() == [[False, True, False]]
    assert plain.later[0, 2] == 1
    for before, after in ((pad, 0), (0, pad), (4, 9)):
        wide = np.pad(alone, ((0, 0), (before, after), (before, after)))
        padded = np.pad(real, ((0, 0), (before, after)))
        for a, b in zip(plain, counted(wide, padded), strict=True):
            np.testing.assert_array_equal(a, b)
        assert first_real(padded).tolist() == [before]
        assert not causal_reach(padded)[~padded].any()


def test_keys_that_nobody_sees_have_no_score():
    received = np.zeros((1, 2, 3))
    reach = np.array([[0, 2, 1]])
    np.testing.assert_array_equal(score(received + 1, reach)[0, 0], [0, 0.5, 1])


def test_the_first_token_is_no_later_one():
    alpha = np.full((1, 1, 4), 0.5)
    real = np.array([[False, True, True, True]])
    found = count_block(alpha, real, np.ones((1, 4), bool))
    assert (found.first[0, 0], found.later[0, 0]) == (True, 2)
    assert (found.later_raw[0, 0], found.total_raw[0, 0]) == (2, 3)


def test_a_sequence_of_padding_alone_is_refused():
    with pytest.raises(BadInput, match="sequence 1 has no real token"):
        first_real(np.array([[True], [False]]))
