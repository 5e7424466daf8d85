"""Groups of tokens on vectors whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mech.probes.catch import caught, caught_by, contiguous_null, variance_explained


def test_each_query_goes_to_the_sink_it_attends_to_most():
    pattern = np.array([[1.0, 0.0, 0.0], [0.6, 0.4, 0.0], [0.2, 0.3, 0.5]])
    assert caught_by(pattern, np.array([0, 1])).tolist() == [0, 0, 1]


def test_groups_that_are_points_explain_everything():
    vectors = np.repeat(np.eye(3), [4, 2, 5], axis=0)
    labels = np.repeat([7, 3, 9], [4, 2, 5])
    assert variance_explained(vectors, labels) == pytest.approx(1)


@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(1, 5))
def test_eta_squared_is_what_the_group_means_predict(seed, seq, groups):
    """1 - η² is the residual of predicting every vector by its group's mean."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(seq, 3)) + 100
    labels = generator.integers(0, groups, seq)
    means = np.stack([vectors[labels == label].mean(axis=0) for label in labels])
    residual = ((vectors - means) ** 2).sum() / ((vectors - vectors.mean(axis=0)) ** 2).sum()
    assert variance_explained(vectors, labels) == pytest.approx(1 - residual, abs=1e-9)


def test_equal_vectors_have_no_variance_to_explain():
    assert np.isnan(variance_explained(np.ones((4, 2)), np.array([0, 0, 1, 1])))


def test_the_null_of_noise_is_that_of_its_degrees_of_freedom():
    """For independent noise E η² = (groups - 1) / (seq - 1), whatever the cut."""
    vectors = np.random.default_rng(0).normal(size=(41, 500))
    null = contiguous_null(vectors, 5, draws=200)
    assert null.mean() == pytest.approx(4 / 40, abs=0.01)


def test_the_null_knows_that_neighbours_are_alike():
    drift = np.arange(40.0)[:, None]
    shuffled = np.random.default_rng(0).permutation(40)
    labels = np.repeat([0, 1, 2, 3], 10)
    assert contiguous_null(drift, 4).mean() > 0.5
    assert variance_explained(drift, labels[shuffled]) < 0.3


def test_a_query_that_looks_at_no_sink_is_caught_by_none():
    pattern = np.array([[0.0, 0.0, 1.0], [0.05, 0.02, 0.93], [0.1, 0.3, 0.6]])
    assert caught_by(pattern, np.array([0, 1]), least=0.1).tolist() == [-1, -1, 1]
    assert caught_by(pattern, np.array([0, 1])).tolist() == [0, 0, 1]


def test_the_share_caught_is_that_of_queries_after_the_first_sink():
    pattern = np.array(
        [[[1.0, 0, 0, 0], [0.2, 0.8, 0, 0], [0.5, 0.1, 0.4, 0], [0.3, 0.2, 0.2, 0.3]]]
    )
    # Queries 2 and 3 on sinks 1 and 2: 0.1 + 0.4 and 0.2 + 0.2.
    np.testing.assert_allclose(caught(pattern, np.array([2, 1])), [0.45])
    assert np.isnan(caught(pattern, np.array([3])))
