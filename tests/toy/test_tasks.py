"""The averaging task says what its words say."""

import jax
import numpy as np
import pytest

from toy.errors import NoSegment
from toy.tasks import DISTRIBUTIONS, averaging, mean_after


@pytest.mark.parametrize("data", DISTRIBUTIONS)
def test_the_target_is_the_mean_after_sep(data):
    made = averaging(jax.random.key(1), batch=500, shortest=3, longest=9, data=data)
    for x, t, last, target in zip(*map(np.asarray, made), strict=True):
        assert 1 <= t < last <= 9
        assert last >= 3
        assert x[t - 1] == 0
        assert not x[last:].any()
        assert target == pytest.approx(x[t:last].mean(), abs=1e-6)
    lengths = np.asarray(made.last)
    assert set(lengths) == set(range(3, 10))
    assert {1} | set(lengths - 1) <= set(np.asarray(made.t)) | set(lengths - 1)
    assert (np.asarray(made.t) == lengths - 1).any()
    assert (np.asarray(made.t) == 1).any()


@pytest.mark.parametrize("data", DISTRIBUTIONS)
def test_numbers_are_standardised(data):
    x = np.asarray(DISTRIBUTIONS[data](jax.random.key(0), (40_000,)), dtype=np.float64)
    kurtosis = {"gaussian": 3.0, "uniform": 1.8, "laplace": 6.0}[data]
    # Five standard errors of the mean, of the variance and of the kurtosis: the eighth moments
    # are 105, 81/9 and 2520, so that x^4 varies by at most sqrt(2520 - 36) = 50.
    assert abs(x.mean()) < 5 / 200
    assert abs(x.var() - 1) < 5 * np.sqrt(kurtosis - 1) / 200
    assert abs((x**4).mean() - kurtosis) < 5 * 50 / 200
    assert (np.abs(x).max() <= np.sqrt(3)) == (data == "uniform")


@pytest.mark.parametrize(("shortest", "longest"), [(1, 5), (0, 5), (6, 5)])
def test_too_short(shortest, longest):
    with pytest.raises(NoSegment, match=f"lengths {shortest}..{longest}"):
        averaging(jax.random.key(0), batch=2, shortest=shortest, longest=longest)


def test_the_mean_starts_after_sep_and_ends_at_the_read_out():
    x = np.array([[1.0, 20.0, 3.0, 4.0, 50.0], [1.0, 2.0, 3.0, 4.0, 6.0]], dtype=np.float32)
    found = mean_after(jax.numpy.asarray(x), jax.numpy.array([2, 4]), jax.numpy.array([4, 5]))
    assert found.tolist() == [3.5, 6.0]
