import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mech.errors import BadInput
from mech.probes.segments import segments


def cloud(seed, seq=19, d=7):
    """Principal components that are well apart."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((seq, d)) * 3.0 ** -np.arange(d) + rng.standard_normal(d)


def rotation(seed, d):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


def test_two_segments_get_two_colours():
    vectors = np.zeros((10, 5))
    vectors[6:, 3] = 4.0
    found = segments(vectors)
    np.testing.assert_allclose(found.axis[0], [0, 0, 0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(found.share, [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(found.colour[:6], [[0, 0.5, 0.5]] * 6)
    np.testing.assert_allclose(found.colour[6:], [[1, 0.5, 0.5]] * 4)


@given(st.integers(0, 99), st.sampled_from([2, 3]))
def test_it_is_the_eigendecomposition_of_the_covariance(seed, components):
    vectors = cloud(seed)
    found = segments(vectors, components)
    values, axes = np.linalg.eigh(np.cov(vectors.T))
    order = np.argsort(values)[::-1][:components]
    np.testing.assert_allclose(found.share, values[order] / values.sum(), rtol=1e-9)
    for mine, theirs in zip(found.axis, axes.T[order], strict=True):
        np.testing.assert_allclose(abs(mine @ theirs), 1, rtol=1e-9)
    centred = vectors - vectors.mean(axis=0)
    np.testing.assert_allclose(found.coordinate, centred @ found.axis.T, atol=1e-12)
    assert found.colour.shape == (19, 3)
    assert (found.colour[:, components:] == 0.5).all()
    np.testing.assert_array_equal(found.colour[:, :components].min(axis=0), 0)
    np.testing.assert_array_equal(found.colour[:, :components].max(axis=0), 1)


@given(st.integers(0, 99))
def test_a_rotation_of_the_space_keeps_distances_and_shares(seed):
    vectors = cloud(seed)
    straight, turned = segments(vectors), segments(vectors @ rotation(seed, 7) + 5.0)
    np.testing.assert_allclose(turned.share, straight.share, rtol=1e-9)

    def distances(found):
        return np.linalg.norm(found.coordinate[:, None] - found.coordinate, axis=-1)

    np.testing.assert_allclose(distances(turned), distances(straight), atol=1e-9)


@given(st.integers(0, 99), st.floats(0.01, 100))
def test_colours_do_not_depend_on_scale_shift_or_order(seed, scale):
    vectors = cloud(seed)
    order = np.random.default_rng(seed).permutation(19)
    expected = segments(vectors).colour
    np.testing.assert_allclose(segments(vectors * scale + 3.0).colour, expected, atol=1e-9)
    np.testing.assert_allclose(segments(vectors[order]).colour, expected[order], atol=1e-9)


@given(st.integers(0, 99))
def test_each_axis_points_where_its_largest_entry_is_positive(seed):
    for axis in segments(cloud(seed)).axis:
        assert axis[np.abs(axis).argmax()] > 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_tokens_that_are_all_alike_are_grey(dtype, value):
    found = segments(np.full((9, 6), value, dtype) * np.arange(1, 7, dtype=dtype))
    np.testing.assert_array_equal(found.colour, 0.5)
    np.testing.assert_array_equal(found.share, 0)
    np.testing.assert_array_equal(found.coordinate, 0)


def test_rounding_is_no_segment():
    """float32 rounding of equal tokens is not blown up to full colour."""
    base = np.random.default_rng(0).standard_normal(50)
    scale = np.linspace(1, 7, 30)[:, None]
    vectors = (base * scale / scale).astype(np.float32)
    np.testing.assert_array_equal(segments(vectors).colour, 0.5)


def test_more_components_than_data_is_refused():
    with pytest.raises(BadInput, match="9 tokens of 2 dimensions have fewer than 3"):
        segments(np.zeros((9, 2)))
    with pytest.raises(BadInput, match="2 or 3 components, not 4"):
        segments(np.zeros((9, 9)), 4)
    assert segments(np.eye(9)[:, :2], 2).colour.shape == (9, 3)
