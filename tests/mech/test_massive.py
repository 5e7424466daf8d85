import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mech.probes.massive import is_massive, massive, peaks
from mech.probes.outliers import int8_outlier_dims, outlier_dims, prevalence


def stream(seed=0, depth=3, batch=2, seq=11, d_model=7):
    """Entries of size 0.5 to 1.5: nothing massive, no outlier."""
    rng = np.random.default_rng(seed)
    shape = (depth, batch, seq, d_model)
    return rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)


def everyone(resid):
    return np.ones(resid.shape[:3], bool)


def test_massive_needs_both_conditions():
    resid = stream()
    assert len(massive(resid).value) == 0
    resid[1, 0, 2, 3] = -5000.0
    resid[2, 1, 0, 6] = 900.0  # large, and below 1000 medians of about 1
    small = resid * 1e-3  # the same ratios, and nothing above 100
    assert len(massive(small).value) == 0
    found = massive(resid)
    assert [field.tolist() for field in found] == [[1], [0], [2], [3], [-5000.0]]
    assert massive(resid, ratio=100.0).depth.tolist() == [1, 2]


def test_the_state_is_one_sequence_at_one_depth():
    """A quiet sequence is not measured by the median of a loud one beside it."""
    resid = np.ones((1, 2, 5, 3))
    resid[0, 1] = 1000.0
    resid[0, 0, 0, 0] = 1500.0
    assert np.argwhere(is_massive(resid)).tolist() == [[0, 0, 0, 0]]


def test_peaks_by_hand():
    resid = np.ones((2, 2, 5, 3))
    resid[0, 0] *= 5.0  # louder, but the peak is the other sequence's
    resid[0, 1, 2, 1] = -40.0
    resid[1, 0] *= 3.0
    resid[1, 0, 4, 2] = 60.0
    found = peaks(resid)
    np.testing.assert_array_equal(found.ratio, [40.0, 20.0])
    np.testing.assert_array_equal(found.value, [-40.0, 60.0])
    assert (found.batch.tolist(), found.token.tolist(), found.dim.tolist()) == (
        [1, 0], [2, 4], [1, 2],
    )  # fmt: skip


def test_peaks_of_a_state_that_is_mostly_zero():
    resid = np.zeros((2, 1, 5, 3))
    resid[1, 0, 2, 2] = 7.0
    assert peaks(resid).ratio.tolist() == [0.0, np.inf]


@given(st.integers(0, 99), st.sampled_from([1e-3, 3.0, 1e3]))
def test_ratios_do_not_depend_on_scale_or_order(seed, scale):
    resid = stream(seed)
    resid[1, 0, 2, 3] = -5000.0
    rng = np.random.default_rng(seed)
    order = rng.permutation(11)
    np.testing.assert_allclose(peaks(resid * scale).ratio, peaks(resid).ratio, rtol=1e-12)
    np.testing.assert_array_equal(peaks(resid[:, :, order]).ratio, peaks(resid).ratio)
    found = massive(resid[:, :, order])
    assert order[found.token].tolist() == [2]


def test_an_outlier_dimension_is_one_of_nearly_all_tokens():
    resid = stream(seq=40)
    resid[1:, :, :, 4] *= 8.0  # 4 to 12, against six medians of 0.5 to 1.5: some tokens only
    resid[1:, :, :, 5] *= 30.0  # at least 15, and above 6 · 1.5 = 9 everywhere
    resid[2, 0, 3, 0] = 900.0  # one token: no dimension of all
    share = prevalence(resid, everyone(resid))
    np.testing.assert_array_equal(share[:, 5], [0, 1, 1])
    assert 0 < share[1, 4] < 1
    assert share[2, 0] == 1 / 80
    assert np.argwhere(outlier_dims(resid, everyone(resid))).tolist() == [[1, 5], [2, 5]]
    assert not outlier_dims(resid, everyone(resid), factor=1000.0).any()


def test_tokens_that_are_left_out_do_not_count():
    resid = stream(depth=1, batch=1, seq=10)
    resid[0, 0, :6, 2] = 50.0
    ordinary = everyone(resid)
    assert prevalence(resid, ordinary)[0, 2] == 0.6
    ordinary[0, 0, :3] = False
    assert prevalence(resid, ordinary)[0, 2] == 3 / 7
    ordinary = everyone(resid)
    ordinary[0, 0, 6:] = False
    assert prevalence(resid, ordinary)[0, 2] == 1.0
    ordinary[0, 0, :6] = False
    assert np.isnan(prevalence(resid, ordinary)).all()
    assert not outlier_dims(resid, ordinary).any()


@given(st.integers(0, 99))
def test_prevalence_is_of_each_token_by_itself(seed):
    """Scaling tokens one by one changes nothing: the measure is relative to each."""
    resid = stream(seed)
    resid[:, :, :, 1] *= np.random.default_rng(seed).uniform(1, 12, resid.shape[:3])
    # Powers of two, so that no comparison changes by rounding.
    scales = 2.0 ** np.random.default_rng(seed).integers(-9, 9, resid.shape[:3])
    np.testing.assert_array_equal(
        prevalence(resid * scales[..., None], everyone(resid)), prevalence(resid, everyone(resid))
    )


def test_the_absolute_rule_needs_layers_and_tokens():
    states = stream(depth=8, batch=1, seq=100)
    states[:2, 0, :24, 0] = -6.0  # 2 of 8 layers; 48 of 800 tokens: exactly at both limits
    states[:1, 0, :, 1] = 50.0  # one layer only
    states[:, 0, :5, 2] = 50.0  # all layers, 40 of 800 tokens
    states[:2, 0, :24, 3] = 5.9  # not large enough
    assert np.flatnonzero(int8_outlier_dims(states)).tolist() == [0]
    assert np.flatnonzero(int8_outlier_dims(states, layers=0.1)).tolist() == [0, 1]
    assert np.flatnonzero(int8_outlier_dims(states, tokens=0.05)).tolist() == [0, 2]
    assert np.flatnonzero(int8_outlier_dims(states, threshold=5.0)).tolist() == [0, 3]
