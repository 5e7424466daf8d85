"""Ranks of products: their definitions, and what no change of gauge may move."""

import numpy as np
import pytest

from mech.probes.spectra import effective_rank, energy_rank, product_spectrum, stable_rank


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_spectrum_is_that_of_the_product(rng):
    left, right = rng.standard_normal((3, 19, 5)), rng.standard_normal((3, 23, 5))
    expected = np.linalg.svd(left @ right.mT, compute_uv=False)[:, :5]
    np.testing.assert_allclose(product_spectrum(left, right), expected, rtol=1e-12)


def test_a_basis_inside_the_head_moves_the_factor_and_not_the_product(rng):
    left, right, basis = (rng.standard_normal(s) for s in ((19, 5), (23, 5), (5, 5)))
    before = product_spectrum(left, right)
    after = product_spectrum(left @ basis, right @ np.linalg.inv(basis).T)
    np.testing.assert_allclose(after, before, rtol=1e-9)
    alone = [effective_rank(np.linalg.svd(m, compute_uv=False)) for m in (left, left @ basis)]
    assert abs(alone[1] / alone[0] - 1) > 0.05


@pytest.mark.parametrize("rank", [effective_rank, stable_rank, energy_rank])
def test_equal_directions_count_as_many(rank):
    values = np.array([[3.0, 3, 3, 3, 0], [7, 0, 0, 0, 0]])
    np.testing.assert_allclose(rank(values), [4, 1], rtol=1e-12)


@pytest.mark.parametrize("rank", [effective_rank, stable_rank, energy_rank])
def test_scale_does_not_count(rank, rng):
    values = np.sort(rng.random((6, 9)))[:, ::-1]
    np.testing.assert_allclose(rank(1e3 * values), rank(values), rtol=1e-12)


def test_known_values():
    values = np.array([2.0, 1.0, 1.0])
    assert effective_rank(values) == pytest.approx(np.exp(0.5 * np.log(2) + 0.5 * np.log(4)))
    assert stable_rank(values) == pytest.approx(1.5)
    assert [energy_rank(values, share) for share in (0.6, 0.8, 0.9)] == [1, 2, 3]
