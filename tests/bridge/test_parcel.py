"""A block's linears as JSON and tensors: whose tensors are whose, of however many linears."""

import json

import torch

from bridge.budget import Cost
from bridge.compression import Done, Row
from bridge.operators import LowRank
from bridge.parcel import unwrapped, wrapped


def folded(done):
    operator = done.operator
    assert isinstance(operator, LowRank)
    return operator.dense()


def test_eleven_linears_and_more_keep_their_own_tensors(generator):
    """The names of the tensors of linear 1 are not the beginning of those of linear 10."""
    done = {}
    for index in range(23):
        rank, name = 1 + index % 3, f"experts.{index}.up_proj"
        left, right = (torch.randn(s, generator=generator) for s in ((5, rank), (rank, 7)))
        row = Row(name, (5, 7), Cost(35, 12 * rank, 384 * rank, 24 * rank, 0), 0.5, 0.25, index / 8)
        done[name] = Done(LowRank(left, right), row)
    linears, held = wrapped(done)
    again = unwrapped(json.loads(json.dumps(linears)), held)
    assert list(again) == list(done)
    for name, one in done.items():
        assert again[name].row == one.row
        assert torch.equal(folded(again[name]), folded(one))
