"""Dormant and sink-specialised heads: planted, and found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mech.errors import BadInput
from mech.probes.dormant import mass_on, output_ratio, quiet, resting
from mech.probes.sinks import score
from mech.probes.specialised import kept, stability, wilson


def heads(seq=20):
    """Head 0 rests on the first token, head 1 spreads itself, head 2 looks at itself."""
    uniform = np.tril(np.ones((seq, seq))) / np.arange(1, seq + 1)[:, None]
    rest = 0.04 * np.eye(seq)
    rest[:, 0] += 0.96
    return np.stack([rest, uniform, np.eye(seq)])


def first_of(batch, seq):
    return np.broadcast_to(np.arange(seq) == 0, (batch, seq))


def test_a_head_that_rests_on_the_first_token_is_dormant():
    received, real = heads().sum(axis=1)[None], np.ones((1, 20), bool)
    mass = mass_on(received, first_of(1, 20), real)
    np.testing.assert_allclose(mass[0, [0, 2]], [0.96 + 0.04 / 20, 1 / 20])
    assert resting(mass).tolist() == [[True, False, False]]
    # It is equation 1 at the first token.
    np.testing.assert_allclose(mass, score(received)[..., 0])
    np.testing.assert_allclose(mass_on(received, real, real), 1)


def test_padding_is_no_query():
    received, real = heads().sum(axis=1)[None], np.ones((1, 20), bool)
    alone = mass_on(received, first_of(1, 20), real)
    padded = np.pad(received, ((0, 0), (0, 0), (7, 0)))
    wide = np.pad(real, ((0, 0), (7, 0)))
    np.testing.assert_allclose(mass_on(padded, np.arange(27)[None] == 7, wide), alone)


@pytest.mark.parametrize("scale", [0.1, 0.49, 0.6])
def test_a_head_with_small_values_is_quiet(scale):
    """Three heads of norm 1 and one of `scale`: its ratio is scale / ((3 + scale) / 4)."""
    z = np.ones((2, 4, 9, 16)) / 4
    z[0, 1] *= scale
    ratio = output_ratio(z, np.ones((2, 9), bool))
    np.testing.assert_allclose(ratio[0, 1], 4 * scale / (3 + scale))
    np.testing.assert_allclose(ratio[1], 1)
    assert quiet(ratio)[0, 1] == (4 * scale / (3 + scale) < 0.5)


@given(st.integers(0, 99), st.floats(1e-3, 1e3))
def test_the_ratio_has_mean_one_and_no_unit(seed, scale):
    rng = np.random.default_rng(seed)
    z, real = rng.normal(size=(2, 5, 7, 3)), rng.random((2, 7)) < 0.8
    real[:, 0] = True
    ratio = output_ratio(z, real)
    np.testing.assert_allclose(ratio.mean(axis=1), 1)
    np.testing.assert_allclose(output_ratio(z * scale, real), ratio)
    # What padding holds does not matter.
    z[~np.broadcast_to(real[:, None], z.shape[:3])] = 1e9
    np.testing.assert_allclose(output_ratio(z, real), ratio)


def test_heads_that_all_write_nothing_have_no_ratio_and_are_not_called_quiet():
    ratio = output_ratio(np.zeros((1, 2, 1, 3)), np.ones((1, 1), bool))
    assert np.isnan(ratio).all()
    assert not quiet(ratio).any()


def test_wilson_by_hand():
    """The table's values for 0, 5 and 10 of 10."""
    low, high = wilson(np.array([0, 5, 10]), 10)
    np.testing.assert_allclose(low, [0, 0.2366, 0.7225], atol=1e-4)
    np.testing.assert_allclose(high, [0.2775, 0.7634, 1], atol=1e-4)
    with pytest.raises(BadInput, match="no prompts"):
        wilson(np.array([0]), 0)


@given(st.integers(1, 60), st.integers(0, 60))
def test_wilson_solves_the_test_that_it_inverts(n, hits):
    """At its ends the share is 1.96 standard deviations of the end from the end."""
    hits %= n + 1
    low, high = wilson(np.array([hits]), n)
    for end in (low[0], high[0]):
        if 1e-12 < end < 1 - 1e-12:  # 0 and 1 are solutions at no hits and at all
            deviation = np.sqrt(end * (1 - end) / n)
            np.testing.assert_allclose(abs(hits / n - end), 1.95996398454 * deviation)
    np.testing.assert_allclose(wilson(np.array([n - hits]), n)[0], 1 - high, atol=1e-12)


def test_heads_that_keep_a_sink_are_found_again_and_those_of_chance_are_not():
    rng = np.random.default_rng(0)
    has = rng.random((20, 6, 5)) < 0.5
    has[:, :2] = True  # ten heads that always have one
    share = kept(has)
    assert (share.share[:2] == 1).all()
    assert (share.low[:2] > 0.83).all()
    found = stability(has)
    assert found.agreement > 0.9
    assert found.control_high < 0.5
    chance = stability(rng.random((20, 30, 30)) < 0.85)
    assert chance.agreement <= chance.control_high + 0.05
    assert chance.agreement < 0.6


def test_no_sinks_no_agreement():
    assert np.isnan(stability(np.zeros((6, 2, 3), bool))).all()
    assert kept(np.zeros((6, 2, 3), bool)).share.max() == 0
    with pytest.raises(BadInput, match="3 prompts"):
        stability(np.zeros((3, 2, 3), bool))


def test_one_share_has_an_interval_of_arrays():
    """Without axes too: annotations promise arrays, and numpy makes scalars of such."""
    low, high = wilson(np.array(3), 5)
    assert isinstance(low, np.ndarray)
    assert isinstance(high, np.ndarray)
    assert low.shape == high.shape == ()
    assert 0 < float(low) < 0.6 < float(high) < 1
