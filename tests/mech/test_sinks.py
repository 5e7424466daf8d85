from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mech.errors import BadInput
from mech.probes.sinks import agreement, count_sinks, guarded, received_of, score, sinks
from mech.trace import Trace


def received(pattern):
    """One layer, one sequence and one head with this attention."""
    return pattern.sum(axis=0)[None, None, None]


def uniform(seq):
    return np.tril(np.ones((seq, seq))) / np.arange(1, seq + 1)[:, None]


def local(seq, width):
    """Each query spreads itself over the last `width` keys, itself included."""
    reach = np.tril(np.ones((seq, seq))) - np.tril(np.ones((seq, seq)), -width)
    return reach / reach.sum(axis=1, keepdims=True)


def resting(seq, key, mass):
    """Every query from `key` on gives it `mass`, and the rest to itself."""
    pattern = np.eye(seq)
    later = np.arange(seq) > key
    pattern[later] *= 1 - mass
    pattern[later, key] = mass
    return pattern


@pytest.mark.parametrize("seq", [1, 2, 31, 43, 44, 128])
def test_uniform_attention_is_harmonic(seq):
    """α_t = (1 / (T - t)) Σ_{i > t} 1/i: at t = 0 the harmonic number over T."""
    alpha = score(received(uniform(seq)))[0, 0, 0]
    for t in (0, seq // 2, seq - 1):
        exact = sum(Fraction(1, i) for i in range(t + 1, seq + 1)) / (seq - t)
        np.testing.assert_allclose(alpha[t], float(exact), rtol=1e-13)
    assert sinks(alpha)[0] == (seq < 44)


def test_below_64_tokens_nothing_is_counted():
    short = score(received(uniform(63)))
    with pytest.raises(BadInput, match="not counted on 63 tokens: below 64"):
        count_sinks(short)
    assert count_sinks(score(received(uniform(64)))).first == 0


@given(
    seq=st.integers(64, 90), key=st.integers(0, 89), mass=st.floats(0.01, 0.99), eps=st.floats(0, 1)
)
def test_one_resting_place(seq, key, mass, eps):
    key %= seq
    alpha = score(received(resting(seq, key, mass)))[0, 0, 0]
    # Its own query gives it all, the others `mass`; every other key gets only its own rest.
    expected = (1 + (seq - key - 1) * mass) / (seq - key)
    np.testing.assert_allclose(alpha[key], expected, rtol=1e-12)
    for t in range(key + 1, seq):
        np.testing.assert_allclose(alpha[t], (1 - mass) / (seq - t), rtol=1e-12)
    np.testing.assert_array_equal(sinks(alpha, eps), alpha > eps)


@given(seq=st.integers(64, 200), width=st.integers(1, 20))
def test_the_tail_of_a_local_head(seq, width):
    """α = 1 / max(w, T - t), once a query's last w keys all exist: nine above 0.1, or none."""
    alpha = score(received(local(seq, width)))[0, 0, 0][width:]
    expected = 1 / np.maximum(width, np.arange(seq - width, 0, -1))
    np.testing.assert_allclose(alpha, expected, rtol=1e-12)
    # Beyond rounding: a tenth itself is not above the threshold.
    assert (alpha > 0.1 + 1e-12).sum() == (9 if width < 10 else 0)


@given(seq=st.integers(64, 200), width=st.integers(1, 6))
def test_a_local_head_has_sinks_at_the_tail_only_and_the_guard_removes_them(seq, width):
    """Equation 1 divides by few queries there: the false sinks of every local head."""
    count = count_sinks(score(received(local(seq, width))))
    # A key is looked at by `width` queries that each give it 1 / width: α = 1 / (T - t).
    assert count.first == 0
    assert count.later_raw >= 9
    assert count.later == 0


def test_a_head_of_neighbours_flags_the_last_keys():
    """Self 1/2 and the one before 1/4: α = 0.75 / (T - t) > 0.1 for the last seven."""
    seq = 64
    pattern = 0.5 * np.eye(seq) + 0.25 * np.eye(seq, k=-1)
    pattern[:, 0] += 1 - pattern.sum(axis=1)
    found = np.flatnonzero(sinks(score(received(pattern))[0, 0, 0]))
    np.testing.assert_array_equal(found, [0, *range(seq - 7, seq)])


def test_counts_by_hand():
    alpha = np.zeros((2, 2, 3, 64))
    alpha[0, :, 1, 0] = 0.2  # a first-token sink in both sequences
    alpha[1, 0, 2, [0, 5, 47, 48, 63]] = 0.11  # 47 is the last that 17 queries see
    alpha[1, 1, 2, 5] = 0.1  # not above the threshold
    count = count_sinks(alpha)
    np.testing.assert_array_equal(count.first, [[0, 1, 0], [0, 0, 0.5]])
    np.testing.assert_array_equal(count.later, [[0, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(count.later_raw, [[0, 0, 0], [0, 0, 2]])
    np.testing.assert_array_equal(count.total_raw, [[0, 1, 0], [0, 0, 2.5]])
    np.testing.assert_array_equal(count_sinks(alpha, support=0).later, count.later_raw)
    assert count_sinks(alpha, epsilon=0.15).total_raw.sum() == 1


def test_the_guard_leaves_support_plus_one_queries():
    tokens = np.flatnonzero(guarded(20))
    assert tokens.tolist() == [1, 2, 3]
    assert (20 - tokens >= 17).all()
    assert not guarded(17).any()


@given(seed=st.integers(0, 99), seq=st.integers(64, 80))
def test_the_order_of_sequences_and_heads_does_not_matter(seed, seq):
    rng = np.random.default_rng(seed)
    alpha = rng.random((2, 3, 4, seq)) ** 3
    heads, sequences = rng.permutation(4), rng.permutation(3)
    straight = count_sinks(alpha)
    mixed = count_sinks(alpha[:, sequences][:, :, heads])
    for a, b in zip(straight, mixed, strict=True):
        np.testing.assert_allclose(a[:, heads], b, rtol=1e-14)
    one_by_one = [count_sinks(alpha[:, i : i + 1]) for i in range(3)]
    for a, parts in zip(straight, zip(*one_by_one, strict=True), strict=True):
        np.testing.assert_allclose(a, np.mean(parts, axis=0), rtol=1e-14)
    np.testing.assert_allclose(straight.total_raw, straight.first + straight.later_raw)


def test_received_is_the_column_sum_of_a_trace():
    pattern = np.arange(2 * 3 * 4 * 5 * 5, dtype=float).reshape(2, 3, 4, 5, 5)
    trace = Trace(np.zeros((3, 5), int), np.zeros((3, 3, 5, 2)), pattern, np.zeros((2, 3, 4, 5, 1)))
    assert received_of(trace)[1, 2, 3, 4] == sum(pattern[1, 2, 3, q, 4] for q in range(5))


def test_agreement_by_hand():
    reference, found = np.zeros((2, 1, 4, 64), bool), np.zeros((2, 1, 4, 64), bool)
    reference[0, 0, :, 0] = True
    found[0, 0, :3, 0] = found[1, 0, 0, 0] = True  # three of four, and one of its own
    reference[1, 0, 0, [3, 4, 60]] = True
    found[1, 0, 0, [4, 61]] = True  # one of two; the tail is not looked at
    assert agreement(found, reference) == (0.75, 0.75, 0.5, 1.0)
    assert agreement(reference, reference) == (1, 1, 1, 1)
    nothing = agreement(np.zeros_like(found), reference)
    assert nothing[::2] == (0, 0)
    assert np.isnan(nothing[1::2]).all()
