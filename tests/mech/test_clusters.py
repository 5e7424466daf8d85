"""Agreement of partitions, against values worked out by hand, and k-means where it is certain."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mech.probes.clusters import adjusted_rand, contiguous, kmeans

labels = st.lists(st.integers(0, 3), min_size=2, max_size=12)


@given(labels, st.permutations(range(4)))
def test_equal_partitions_agree_whatever_their_names(a, names):
    renamed = np.array(names)[a]
    found = adjusted_rand(np.array(a), renamed)
    # One group, or every item by itself: nothing that chance would not give.
    trivial = len(set(a)) in (1, len(a))
    assert np.isnan(found) if trivial else found == pytest.approx(1)


@pytest.mark.parametrize(
    ("a", "b", "by_hand"),
    [
        # Contingency [[2, 1], [0, 3]]: Σ C(n_ij, 2) = 4, Σ C(a_i, 2) = 6, Σ C(b_j, 2) = 1 + 6 = 7,
        # C(6, 2) = 15: (4 - 42/15) / (6.5 - 42/15).
        ([0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1], 1.2 / 3.7),
        # Every pair of cells equal: index 0, e = 2·2/6: (0 - 2/3) / (2 - 2/3).
        ([0, 0, 1, 1], [0, 1, 0, 1], -0.5),
        # A single cluster against two: index = e, so what chance gives.
        ([0, 0, 0, 0], [0, 0, 1, 1], 0.0),
        # Singles against pairs: index 0 and e 0.
        ([0, 1, 2, 3], [0, 0, 1, 1], 0.0),
    ],
)
def test_the_index_by_hand(a, b, by_hand):
    assert adjusted_rand(np.array(a), np.array(b)) == pytest.approx(by_hand)
    assert adjusted_rand(np.array(b), np.array(a)) == pytest.approx(by_hand)


def test_independent_partitions_agree_by_nothing_on_average():
    generator = np.random.default_rng(0)
    a = np.repeat([0, 1, 2], [20, 10, 5])
    found = [adjusted_rand(a, generator.permutation(a)) for _ in range(2000)]
    # Its mean is exactly 0 over permutations; 5 standard errors of the sample.
    assert abs(np.mean(found)) < 5 * np.std(found) / np.sqrt(len(found))
    assert np.std(found) > 0.01


@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_kmeans_finds_clouds_that_lie_apart(seed, groups):
    generator = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(groups), generator.integers(0, groups, 20)])
    vectors = 100.0 * np.eye(5)[truth] + generator.normal(size=(len(truth), 5))
    found = kmeans(vectors, groups)
    assert adjusted_rand(found, truth) == pytest.approx(1)
    np.testing.assert_array_equal(found, kmeans(vectors, groups))


def test_no_partition_of_few_points_is_better():
    vectors = np.random.default_rng(3).normal(size=(9, 2))
    best = min(_within(vectors, np.array([mask >> i & 1 for i in range(9)])) for mask in range(256))
    assert _within(vectors, kmeans(vectors, 2)) == pytest.approx(best)


def test_kmeans_of_equal_vectors_is_one_group():
    assert len(set(kmeans(np.ones((7, 3)), 3).tolist())) == 1


@given(st.integers(2, 20), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_random_cut_has_all_its_segments_in_order(items, groups, seed):
    groups = min(groups, items)
    found = contiguous(items, groups, np.random.default_rng(seed))
    assert np.all(np.diff(found) >= 0)
    assert set(found) == set(range(groups))


def _within(vectors, labels):
    groups = [vectors[labels == label] for label in np.unique(labels)]
    return sum(((group - group.mean(axis=0)) ** 2).sum() for group in groups)
