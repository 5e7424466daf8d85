"""A statistic depends on the tokens, not on how they came."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bridge.statistics import Moment, SecondMoment, diagonal_moment, nothing, second_moment

STATISTICS = {
    "nothing": nothing,
    "diagonal_moment": diagonal_moment,
    "second_moment": second_moment,
}


def numbers(state) -> list[float]:
    return [x for field in state for x in torch.as_tensor(field).flatten().tolist()]


@pytest.mark.parametrize("statistic", STATISTICS.values(), ids=STATISTICS)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=5), st.integers(0, 2**31))
def test_batches_do_not_matter(statistic, sizes, seed):
    x = torch.randn(sum(sizes), 5, generator=torch.Generator().manual_seed(seed))
    whole = statistic.update(statistic.init(5), x)
    streamed, merged = statistic.init(5), statistic.init(5)
    for batch in x.split(sizes):
        streamed = statistic.update(streamed, batch)
        merged = statistic.merge(statistic.update(statistic.init(5), batch), merged)
    # Sums of at most 35 float64 terms: 35 roundings of the sum of their magnitudes.
    size = float(x.double().square().sum())
    allowed = {"rel": 35 * 2**-52, "abs": 35 * 2**-53 * size}
    assert numbers(streamed) == pytest.approx(numbers(whole), **allowed)
    assert numbers(merged) == pytest.approx(numbers(whole), **allowed)


def test_the_moment_is_a_mean_over_tokens_in_float64():
    x = torch.tensor([[1.0, 2.0], [3.0, 2.0**-30]])
    moment = diagonal_moment.update(diagonal_moment.init(2), x)
    assert moment.mean.tolist() == [5.0, 2.0 + 2.0**-61]
    assert moment.tokens == 2


def test_half_precision_inputs_do_not_overflow():
    x = torch.full((3, 1), 60000.0, dtype=torch.float16)
    assert diagonal_moment.update(diagonal_moment.init(1), x).mean.item() == 60000.0**2


def test_a_state_is_not_changed():
    before = Moment(torch.ones(2, dtype=torch.float64), 1)
    diagonal_moment.update(before, torch.ones(4, 2))
    assert before.total.tolist() == [1, 1]


def test_the_second_moment_is_the_mean_outer_product_and_holds_the_diagonal_one():
    x = torch.tensor([[1.0, 2.0], [3.0, -2.0]])
    moment = second_moment.update(second_moment.init(2), x)
    assert moment.mean.tolist() == [[5.0, -2.0], [-2.0, 4.0]]
    assert moment.diagonal.mean.tolist() == [5.0, 4.0]
    before = SecondMoment(torch.ones(2, 2, dtype=torch.float64), 1)
    second_moment.update(before, x)
    assert before.total.tolist() == [[1, 1], [1, 1]]
