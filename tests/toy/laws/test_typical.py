"""The bound against typical inputs: the limit of the ratio is known input by input."""

import numpy as np
import pytest

from toy.bounds import error_bound
from toy.laws.residuals import crowds, residuals
from toy.laws.tails import Sequences, draw
from toy.laws.typical import kappa, typical


def test_bound_over_error_tends_to_kappa_input_by_input():
    s = 45.0
    drawn = draw(np.random.default_rng(0), "uniform", 60)
    drawn = Sequences(*(field[drawn.last - drawn.t > 1] for field in drawn))
    X = np.abs(drawn.x).max(axis=1)
    bound = np.array(
        [
            error_bound(int(T), int(t), float(x), s_tag=s)
            for T, t, x in zip(drawn.last, drawn.t, X, strict=True)
        ]
    )
    # Second order: (s-1)^2 r and cancellation in K, both below 44^2 31 e^{4-45} times |c| / |K|.
    np.testing.assert_allclose(
        bound / np.abs(residuals(crowds(drawn), s_tag=s)), kappa(drawn), rtol=1e-8
    )


@pytest.mark.parametrize("tail", ["uniform", "gaussian"])
def test_the_median_ratio_is_constant_in_s(tail):
    found = typical(tail, np.array([14.0, 30.0, 50.0]), sequences=150)
    assert (found.low >= 1).all()  # the bound holds
    assert (found.low <= found.ratio).all()
    assert (found.ratio <= found.high).all()
    np.testing.assert_allclose(found.ratio[1:], found.predicted[1:], rtol=1e-3)
    assert found.ratio[1] == pytest.approx(found.ratio[2], rel=1e-3)
    assert (np.diff(found.share) >= 0).all()
    assert found.share[2] == 1
