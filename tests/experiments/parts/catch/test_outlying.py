"""Large dimensions: planted ones are found, rotation spreads them, the mode is of other rows."""

import numpy as np

from experiments.parts.catch.outlying import kinds, large, same


def test_a_planted_dimension_is_found_and_not_in_rotated_axes():
    rng = np.random.default_rng(0)
    resid = rng.normal(size=(2, 40, 64)).astype(np.float32)
    resid[..., 5] = 30
    resid[0, 3, 9] = 500
    later = np.zeros((2, 40), bool)
    later[0, 3] = True
    found = large(resid, [np.zeros_like(later), later, ~later])
    assert np.allclose(found.share[0], 1 / 64)
    assert not found.share[1].any()
    assert found.top[1][0].tolist() == [9]
    assert found.top[1][1].tolist() == []
    assert found.size[2].argmax() == 5
    assert np.isnan(found.peak[0, 0]).all()
    assert found.peak[0, 1, 0] > found.peak[0, 2, 0]
    assert np.isnan(found.peak[0, 1, 1])


def test_the_commonest_dimension_is_that_of_other_sequences():
    tops = [np.array([4, 4, 7]), np.array([7]), np.array([], int), np.array([7, 7])]
    assert same(tops)[0] == 1 / 3
    assert np.isnan(same(tops)[2])
    assert np.isnan(same([np.array([1]), np.array([], int)])[0])


def test_kinds_part_the_tokens_and_leave_the_tail_out():
    alpha = np.zeros((1, 2, 64))
    alpha[0, 0, 0] = alpha[0, 1, 10] = alpha[0, 1, 60] = 0.5
    first, later, other = kinds(alpha, 0.1)
    assert np.flatnonzero(first[0]).tolist() == [0]
    assert np.flatnonzero(later[0]).tolist() == [10]
    assert other[0].sum() == 64 - 16 - 2
