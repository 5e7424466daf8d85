import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mech.probes.massive import RATIO, is_massive, massive_entries, medians
from mech.probes.outliers import beyond_sigmas, consistent, int8_from_counts, int8_outlier_dims
from mech.probes.spells import NEVER, spells, steps

BATCH, SEQ, D = 2, 7, 11


class Model:
    """A stream of entries of size about 1, into which blocks write what they are told to."""

    def __init__(self, layers):
        rng = np.random.default_rng(0)
        self.start = rng.uniform(0.5, 1.5, (BATCH, SEQ, D)) * rng.choice([-1, 1], (BATCH, SEQ, D))
        self.attn, self.mlp = np.zeros((2, layers, BATCH, SEQ, D))

    def found(self, *, writes=True):
        real = np.ones((BATCH, SEQ), bool)
        pre, blocks = self.start, []
        for attn, mlp in zip(self.attn, self.mlp, strict=True):
            post = pre + attn + mlp
            (was,), (now,) = (massive_entries(x, real, RATIO) for x in (pre, post))
            given_writes = (attn, mlp) if writes else (None, None)
            blocks.append(steps(was, now, pre, post, *given_writes))
            pre = post
        return spells(blocks)


def test_planted_spells_are_found_with_their_writers():
    model = Model(6)
    model.mlp[1, 0, 0, 3] = 4500.0
    model.attn[1, 0, 0, 3] = 500.0
    model.mlp[4, 0, 0, 3] = -5000.0
    model.attn[2, 1, 5, 7] = -9000.0  # by attention, and to the end
    model.mlp[3, 1, 2, 2] = 700.0  # above 100, below 1000 medians
    first, second = model.found()
    assert first[:6] == (0, 0, 3, 1, 4, 3)
    assert first.by_mlp == pytest.approx(0.9)
    assert (first.writer, first.erased_by_mlp) == (1, 1)
    assert second[:6] == (1, 5, 7, 2, NEVER, 4)
    assert (second.by_mlp, np.isnan(second.erased_by_mlp)) == (0, True)
    assert second.value == pytest.approx(-9000, abs=2)


def test_what_erases_an_entry_is_all_that_takes_from_it():
    """Two blocks, and in the last one the two writes nearly cancel: 4000 of 5000 by the MLP."""
    model = Model(6)
    model.mlp[1, 0, 0, 3] = 6000.0
    model.mlp[3, 0, 0, 3] = -4000.0
    model.attn[4, 0, 0, 3] = -1100.0
    model.mlp[4, 0, 0, 3] = 100.0
    (spell,) = model.found()
    assert spell.death == 4
    assert spell.erased_by_mlp == pytest.approx(3900 / 5000)


def test_an_entry_may_have_two_spells_and_may_enter_with_the_embedding():
    model = Model(5)
    model.start[0, 1, 1] = 6000.0
    model.mlp[1, 0, 1, 1] = -6000.0
    model.mlp[3, 0, 1, 1] = 7000.0
    first, second = model.found()
    assert (first.birth, first.death, first.lifetime) == (NEVER, 1, 1)
    assert first.value == 6000
    assert (second.birth, second.death, second.lifetime) == (3, NEVER, 2)
    assert (first.writer, second.writer) == (NEVER, 3)


def test_the_writer_is_the_block_that_adds_most_and_not_the_one_that_passes_the_limit():
    """As in the demo model, where one block passes the limit a little and the next one far."""
    model = Model(6)
    model.attn[1, 0, 4, 2] = -1600.0
    model.mlp[2, 0, 4, 2] = -9000.0
    model.mlp[3, 0, 4, 2] = 8000.0  # a change towards 0 writes nothing
    model.mlp[5, 0, 4, 2] = 2000.0
    (spell,) = model.found()
    assert (spell.birth, spell.writer, spell.death, spell.by_mlp) == (1, 2, 5, 1)
    assert spell.value == pytest.approx(-10600, abs=2)


def test_without_the_writes_the_writer_is_unknown_and_the_spell_is_not():
    model = Model(3)
    model.mlp[1, 0, 0, 0] = 5000.0
    (spell,) = model.found(writes=False)
    assert (spell.birth, spell.lifetime) == (1, 2)
    assert np.isnan(spell.by_mlp)
    assert Model(3).found() == []


@given(st.integers(0, 99), st.integers(0, 5))
def test_padding_is_no_part_of_the_state(seed, pad):
    rng = np.random.default_rng(seed)
    resid = rng.normal(size=(BATCH, SEQ, D))
    resid[0, 2, 3] = 1e4
    real = np.ones((BATCH, SEQ), bool)
    found, none = massive_entries(resid, real, 50.0, 1e5)
    np.testing.assert_array_equal(found, is_massive(resid[None], ratio=50.0)[0])
    assert found[0, 2, 3]
    assert not none.any()
    wide = np.pad(resid, ((0, 0), (pad, 0), (0, 0)), constant_values=1e6)
    also = np.pad(real, ((0, 0), (pad, 0)))
    np.testing.assert_array_equal(medians(wide, also), medians(resid, real))
    (padded,) = massive_entries(wide, also, 50.0)
    np.testing.assert_array_equal(padded[:, pad:], found)
    assert not padded[:, :pad].any()


@given(st.integers(0, 99))
def test_the_absolute_rule_from_counts_is_the_rule(seed):
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(8, 3, 5, 6)) * rng.choice([1, 4], (8, 1, 1, 6))
    large = np.abs(states) >= 6.0
    expected = (large.any(axis=(1, 2)).mean(axis=0) >= 0.25) & (large.mean(axis=(0, 1, 2)) >= 0.06)
    counted = int8_from_counts(large.sum(axis=(1, 2)), 15)
    np.testing.assert_array_equal(counted, expected)
    np.testing.assert_array_equal(int8_outlier_dims(states), expected)


def test_three_sigmas_by_hand():
    """One entry of d differs: it is (d − 1) / √d standard deviations out."""
    for d in (10, 11, 50):
        weights = np.ones((2, d))
        weights[1, 4] = 2.0
        assert beyond_sigmas(weights)[1, 4] == ((d - 1) / np.sqrt(d) > 3)
        assert beyond_sigmas(weights).sum() <= 1
    assert not beyond_sigmas(np.zeros((1, 20))).any()


@given(st.integers(0, 99), st.floats(0.1, 100), st.floats(-5, 5))
def test_three_sigmas_have_no_unit_and_no_origin(seed, scale, shift):
    values = np.random.default_rng(seed).normal(size=(3, 40)) ** 3
    flags = beyond_sigmas(values)
    np.testing.assert_array_equal(beyond_sigmas(values * scale + shift), flags)


def test_consistent_means_in_the_same_place():
    flags = np.zeros((4, 3), bool)
    flags[:2, 0] = flags[0, 1] = True
    assert consistent(flags).tolist() == [True, False, False]
    assert consistent(flags, 0.25).tolist() == [True, True, False]
