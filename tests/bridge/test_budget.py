"""Budgets are exact and never exceeded."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bridge.budget import Cost, cost, sparse_low_rank
from bridge.operators import Affine, Dense, LowRank, Sparse, Stack
from mech.errors import BadInput

SIZE = st.integers(1, 20000)


@given(SIZE, SIZE, st.integers(1, 99), st.integers(0, 99))
def test_kept_is_at_most_the_budget_and_rounded_down_once_each(d_out, d_in, rho, kappa):
    budget = sparse_low_rank(d_out, d_in, compression=rho / 100, rank_ratio=kappa / 100)
    density, share = 1 - Fraction(rho, 100), Fraction(kappa, 100)
    rank, row = share * density * d_out * d_in / (d_out + d_in), (1 - share) * density * d_in
    assert 0 <= rank - budget.rank < 1
    assert 0 <= row - budget.kept_per_row < 1
    assert budget.kept == budget.rank * (d_out + d_in) + budget.kept_per_row * d_out
    assert budget.kept <= density * d_out * d_in


def test_published_sizes():
    """Llama-2-7B and the demo model at 50%, κ = 0.25: what the release of OATS computes."""
    assert sparse_low_rank(4096, 4096, compression=0.5, rank_ratio=0.25)[:2] == (256, 1536)
    assert sparse_low_rank(576, 1536, compression=0.5, rank_ratio=0.25)[:2] == (52, 576)


@pytest.mark.parametrize(
    ("compression", "rank_ratio"), [(0.0, 0.2), (1.0, 0.2), (0.5, 1.0), (0.5, -0.1), (-1.0, 0.2)]
)
def test_refuses_what_is_no_fraction(compression, rank_ratio):
    with pytest.raises(BadInput, match="must be"):
        sparse_low_rank(5, 7, compression=compression, rank_ratio=rank_ratio)


def test_cost_of_terms_by_hand():
    weight = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]])
    sparse, low = Sparse(weight), LowRank(torch.ones(2, 1), torch.ones(1, 3))
    # 3 values and 6 bits of mask are 13 bytes; 3 numbers in and 2 out are 20.
    assert cost(sparse, 6) == Cost(6, kept=3, bits=3 * 32 + 6, flops=6, bytes_moved=13 + 20)
    # 5 values, and one number that the first product hands to the second: written, and read.
    assert cost(low, 6) == Cost(6, kept=5, bits=5 * 32, flops=10, bytes_moved=20 + 20 + 8)
    both = Affine(sparse + low, torch.ones(2))
    found = cost(both, 6)
    assert found[:4] == (6, 8, 8 * 32 + 6 + 2 * 32, 18)
    # Both terms read the same input and write one output.
    assert found.bytes_moved == 41 + 20 + 8
    assert cost(both.to(torch.bfloat16), 6).bits == 8 * 16 + 6 + 2 * 16
    assert cost(both, 6).bytes_moved == 21 + 10 + 4
    assert cost(both, 6).density == 8 / 6


def test_a_fused_matrix_reads_its_input_once():
    stack = Stack([Sparse(torch.ones(2, 3)), LowRank(torch.ones(5, 1), torch.ones(1, 3))])
    # 6 values and 6 bits, 8 values: 57 bytes; 3 numbers in, 7 out, one handed on.
    assert cost(stack, 21).bytes_moved == 57 + 4 * (3 + 7 + 2)


def test_cost_of_a_linear():
    # 8 or 6 numbers stored, 3 read, 2 written.
    assert cost(nn.Linear(3, 2)) == Cost(6, kept=6, bits=8 * 32, flops=14, bytes_moved=13 * 4)
    bare = nn.Linear(3, 2, bias=False)
    assert cost(bare) == Cost(6, kept=6, bits=6 * 32, flops=12, bytes_moved=11 * 4)
    assert cost(bare.bfloat16()).bytes_moved == 11 * 2
    assert Cost(1, 2, 3, 4, 5) + Cost(10, 20, 30, 40, 50) == Cost(11, 22, 33, 44, 55)


def test_a_dense_operator_costs_what_its_linear_does():
    linear = nn.Linear(5, 7, bias=False)
    assert cost(Dense(linear.weight), 35) == cost(linear)
