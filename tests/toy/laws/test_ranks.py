"""When ranks fall, and what zeroing entries of W_V1 does, on made and on trained weights."""

import numpy as np
import pytest

from toy.laws.measure import stacked
from toy.laws.ranks import ENTRIES, ranks, ratio, since, zeroed
from toy.transformer import theorem_weights


def test_since_is_the_first_step_of_the_last_run():
    holds = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 1], [1, 1, 0]], dtype=bool)
    np.testing.assert_array_equal(since(holds, np.array([5.0, 6.0, 7.0])), [6, 7, 5, np.inf])


def test_a_first_row_is_free_a_constant_is_not_and_the_tag_is_all():
    made = theorem_weights(16.0, 0.0, 0.06)
    W_V1 = np.asarray(made.W_V1).copy()
    W_V1[0] = [0.7, 0.5]
    W_V1[1, 0] = 0.05  # adds -16 * 0.05 to every number after [SEP]
    found = {
        one.name: one
        for one in zeroed(
            stacked([made._replace(W_V1=W_V1)]), tail="uniform", sequences=300, seed=0
        )
    }
    assert set(found) == set(ENTRIES)
    as_is = found["as trained"]
    assert as_is.removed[0] == 0
    assert as_is.fvu[0] > 1
    assert as_is.centred[0] < 1e-4
    # The first row meets 1 - a <= 31 e^{4 - 16} only.
    assert found["first row zeroed"].fvu[0] == pytest.approx(as_is.fvu[0], rel=1e-2)
    assert found["[2,1] zeroed"].fvu[0] < 1e-4
    assert found["only [2,2] kept"].fvu[0] < 1e-4
    assert found["[2,2] zeroed (control)"].centred[0] > 0.5


@pytest.fixture(scope="module")
def seen(trained, found):
    return ranks(trained, found, sequences=1024)


def test_in_trained_seeds_the_second_direction_of_w_v1_is_a_constant(seen):
    """Only [2, 2] kept, and the best constant: the loss is what it was. Without it: no."""
    entries = {one.name: one for one in seen.zeroed}
    before = entries["as trained"].fvu
    only = entries["only [2,2] kept"]
    assert (only.removed > 0.5).all()
    assert (only.centred < 2 * before + 0.01).all()
    assert (entries["[2,2] zeroed (control)"].centred > 0.5).all()


def test_qk_becomes_of_rank_one_before_the_loss_has_fallen_and_w_v1_does_not(seen):
    assert (seen.QK_low <= seen.loss_low).all()
    assert np.isfinite(seen.loss_low).all()
    assert np.isinf(seen.V1_low).any()
    assert np.median(seen.ratio_QK) < 0.05 < np.median(seen.ratio_V1)
    np.testing.assert_allclose(ratio(np.array([[4.0, 1.0]])), [0.25])
