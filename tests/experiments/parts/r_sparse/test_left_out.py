"""Spectra of what left-out inputs add, against NumPy's singular values."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.parts.r_sparse import left_out


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 2**31), st.integers(3, 40), st.integers(2, 20), st.integers(2, 20))
def test_the_spectrum_is_that_of_the_biases(seed, tokens, d_out, d_in):
    x, weight = drawn(seed, tokens, d_in), drawn(seed + 1, d_out, d_in)
    narrow = left_out.narrow(weight)
    assert narrow.shape == (min(d_out, d_in), d_in)
    found = left_out.spectrum(x, narrow)
    wanted = np.linalg.svd((x @ weight.mT).double().numpy(), compute_uv=False)
    k = min(tokens, d_out, d_in)
    np.testing.assert_allclose(found[:k], wanted[:k], rtol=1e-3, atol=2e-3 * wanted[0])
    assert (found[k:] <= 2e-3 * wanted[0]).all()


def test_what_is_left_out_is_the_small_share():
    x = drawn(0, 40, 31)
    rest = left_out.rest(x, 0.3)
    assert (rest != 0).float().mean() == pytest.approx(0.3, abs=1e-3)
    assert torch.equal(rest[rest != 0], x[rest != 0])
    assert rest.abs().max() <= x[rest == 0].abs().min()


def test_mixing_keeps_every_channel_and_breaks_what_goes_together():
    x = torch.outer(drawn(0, 400), torch.ones(30))
    found = left_out.mixed(x, seed=0)
    assert torch.equal(found.sort(dim=0).values, x.sort(dim=0).values)
    identity = torch.eye(30)
    one = left_out.counts(left_out.spectrum(x, identity), 30)
    many = left_out.counts(left_out.spectrum(found, identity), 30)
    assert one[0] * 30 == pytest.approx(1, abs=1e-3)
    assert many[0] * 30 > 10
    assert torch.equal(left_out.mixed(x, 0), found)
    assert not torch.equal(left_out.mixed(x, 1), found)


def test_counts_are_shares_of_the_outputs():
    found = left_out.counts(np.array([2.0, 2.0, 2.0, 0.0]), 8)
    np.testing.assert_allclose(found, [3 / 8, 3 / 8, 3 / 8])


def test_random_numbers_have_the_stable_rank_of_marchenko_and_pastur():
    """‖G‖²_F / ‖G‖²₂ of an n × d Gaussian is nd / (√n + √d)², and W has a spectrum of its own."""
    n, d = 4000, 60
    found = left_out.counts(left_out.spectrum(drawn(3, n, d), torch.eye(d)), d)
    assert found[0] == pytest.approx(n / (n**0.5 + d**0.5) ** 2, rel=0.05)
    random = left_out.random_counts(200, 60, 40, 0.5, 0)
    assert random == left_out.random_counts(200, 60, 40, 0.5, 0)
    assert 0 < random[0] < random[1] <= 40 / 60
