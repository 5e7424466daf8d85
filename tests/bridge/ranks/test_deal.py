"""What ranks decide without each other: who reads which batches, who replaces which linears."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from bridge.flat import poured, refilled
from bridge.methods.lqer import mean_magnitude
from bridge.ranks import TorchRanks, deal, share
from bridge.statistics import diagonal_moment, nothing, second_moment
from bridge.watch import Seen
from mech.errors import BadInput


@given(st.integers(0, 50), st.integers(1, 9))
def test_shares_are_neighbours_and_differ_by_one_at_most(count, size):
    shares = [range(*share(count, rank, size)) for rank in range(size)]
    assert [i for each in shares for i in each] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(
    st.lists(st.tuples(st.integers(1, 64), st.integers(1, 64)), min_size=1, max_size=12),
    st.integers(1, 5),
)
def test_linears_are_dealt_once_each_and_evenly(shapes, size):
    named = {str(index): shape for index, shape in enumerate(shapes)}
    hands = deal(named, size)
    assert sorted(name for hand in hands for name in hand) == sorted(named)
    costs = {name: shape[1] ** 2 * sum(shape) for name, shape in named.items()}
    loads = [sum(costs[name] for name in hand) for hand in hands]
    # Greedy: who has most would not have got its last one had another had less before it.
    assert max(loads) <= sum(loads) / size + max(costs.values()) * (1 - 1 / size)


@pytest.mark.parametrize("statistic", [nothing, diagonal_moment, second_moment, mean_magnitude])
def test_statistics_add_field_by_field(statistic, generator):
    """What ranks rely on: merging is the sum of every field."""
    a, b = (
        statistic.update(statistic.init(5), torch.randn(n, 5, generator=generator)) for n in (7, 4)
    )
    merged = statistic.merge(a, b)
    for x, y, z in zip(a, b, merged, strict=True):
        assert torch.equal(torch.as_tensor(x + y), torch.as_tensor(z))


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int64, torch.bfloat16, torch.float32, torch.float64]
)
def test_what_is_poured_is_refilled_bit_for_bit(dtype, generator):
    whole = torch.randint(0, 2, (3, 5), generator=generator).to(dtype)
    whole[0, 0], whole[-1, -1] = 0, 1  # so that the first bytes are not the last tensor's too
    held = {"a": whole.mT, "b": whole[:0], "c": whole[-1, -1], "d": whole[1:]}
    held["none"] = torch.from_numpy(np.zeros(0))
    content, found = refilled(*poured({"x": [0.1, None]}, held))
    assert content == {"x": [0.1, None]}
    assert found.keys() == held.keys()
    for key, tensor in held.items():
        assert found[key].dtype == tensor.dtype
        assert torch.equal(found[key], tensor)
        assert found[key].is_contiguous()


@pytest.fixture
def alone(tmp_path):
    """A group of one."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield TorchRanks()
    dist.destroy_process_group()


def test_fewer_batches_than_ranks_are_refused(alone):
    alone.size = 4
    assert len(alone.mine(range(4))) == 1
    with pytest.raises(BadInput, match="3 calibration batches for 4 ranks"):
        alone.mine(range(3))


def test_without_a_group_there_are_no_ranks():
    with pytest.raises(BadInput, match="start with --ranks"):
        TorchRanks()


def test_a_state_that_is_shared_stays_shared_and_whole(alone, generator):
    x = torch.randn(9, 400, generator=generator)  # its second moment travels alone, in place
    state = second_moment.update(second_moment.init(400), x)
    moment = diagonal_moment.update(diagonal_moment.init(400), x)
    both, other = Seen(state, moment), Seen(state, diagonal_moment.init(400))
    before = state.total.clone()
    found = alone.summed({"q": both, "k": both, "v": other})
    assert found["q"] is found["k"]
    assert found["v"] is not found["q"]
    assert torch.equal(found["q"].statistic.total, before)
    assert torch.equal(state.total, before)
    assert (found["q"].moment.tokens, found["v"].moment.tokens) == (9, 0)
    assert alone.spent()[0].bytes > before.nbytes


def test_a_large_moment_of_two_states_is_summed_once_for_each(alone, generator, monkeypatch):
    """It is summed in place: of a second rank that has the same, each is twice what it was."""
    monkeypatch.setattr(alone, "_sum", lambda tensor: tensor.mul_(2))
    x = torch.randn(9, 400, generator=generator)
    state = second_moment.update(second_moment.init(400), x)
    before = state.total.clone()
    moments = [diagonal_moment.update(diagonal_moment.init(400), part) for part in (x, x[:4])]
    found = alone.summed({"q": Seen(state, moments[0]), "v": Seen(state, moments[1])})
    for name in "qv":
        assert torch.equal(found[name].statistic.total, 2 * before)


def test_a_statistic_that_is_no_sum_is_refused(alone):
    @dataclasses.dataclass
    class Other:
        total: Any

    state = Seen(Other(torch.zeros(2)), diagonal_moment.init(2))
    with pytest.raises(BadInput, match=r"layers\.0\.q: ranks add statistics field by field"):
        alone.summed({"layers.0.q": state})
