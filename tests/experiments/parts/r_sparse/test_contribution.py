"""Maps of contributions against their sums written out, and what a budget leaves out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bridge.decode.plan import Setting
from experiments.parts.r_sparse import contribution
from experiments.parts.r_sparse.contribution import Components, contribution_map, corner, lost
from experiments.progress import Progress


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(x, weight, cells):
    """Every |x_j| σ_i |v_ji| by itself, in float64."""
    _, sizes, right = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    tokens = []
    for row in x.double().numpy():
        channels = np.array_split(np.argsort(-np.abs(row), kind="stable"), cells)
        components = np.array_split(np.arange(len(sizes)), cells)
        found = np.array(
            [
                [sum(abs(row[j] * sizes[i] * right[i, j]) for j in js for i in components_)
                 for components_ in components]
                for js in channels
            ]
        )  # fmt: skip
        tokens.append(found / found.sum())
    return np.mean(tokens, axis=0)


@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(5, 9), st.integers(5, 9),
       st.integers(1, 5))  # fmt: skip
def test_a_map_is_its_sum_written_out(seed, tokens, d_out, d_in, cells):
    x, weight = drawn(seed, tokens, d_in), drawn(seed + 1, d_out, d_in)
    found = contribution_map(x, Components.of(weight), cells)
    np.testing.assert_allclose(found, by_hand(x, weight, cells), rtol=2e-3, atol=1e-5)
    assert found.sum() == pytest.approx(1)


def test_a_map_does_not_know_scales_or_names_of_channels():
    x, weight = drawn(0, 7, 9), drawn(1, 5, 9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    found = contribution_map(x, Components.of(weight), 3)
    other = contribution_map(3 * x[:, order], Components.of(-2 * weight[:, order]), 3)
    np.testing.assert_allclose(found, other, rtol=1e-4)


def test_a_zero_token_has_no_shares():
    x, parts = drawn(0, 3, 9), Components.of(drawn(1, 5, 9))
    with_zero = torch.cat([x, torch.zeros(1, 9)])
    np.testing.assert_allclose(contribution_map(with_zero, parts, 2), contribution_map(x, parts, 2))


def test_planted_corner_is_found():
    """One channel is all there is of x, one component of W: the whole map is its first cell."""
    x = torch.zeros(4, 8)
    x[:, 5] = torch.tensor([1.0, -2.0, 3.0, 0.5])
    weight = torch.outer(drawn(0, 6), drawn(1, 8))
    found = contribution_map(x, Components.of(weight), 2)
    assert corner(found, 0.5) == pytest.approx(1, abs=1e-5)
    even = np.full((4, 4), 1 / 16)
    assert corner(even, 0.5) == pytest.approx(0.25)
    assert corner(np.stack([even, even]), 0.25).tolist() == pytest.approx([1 / 16, 1 / 16])


@given(st.integers(0, 2**31), st.sampled_from([(24, 16), (16, 24)]), st.floats(0.2, 0.8))
def test_what_is_lost_is_the_error_of_the_sparse_linear(seed, shape, sparsity):
    d_out, d_in = shape
    setting = Setting(sparsity, 0.6)
    x, weight = drawn(seed, 5, d_in), drawn(seed + 1, d_out, d_in)
    found = lost(x, Components.of(weight), setting)

    def ratio(keep, rank):
        errors = []
        u = torch.linalg.svd(weight).U[:, :rank]
        for row in x:
            rest = row.clone()
            rest[rest.abs().argsort(descending=True)[: round(keep * d_in)]] = 0
            error = weight @ rest - u @ (u.T @ (weight @ rest))
            errors.append(float(error.square().sum() / (weight @ row).square().sum()))
        return np.mean(errors)

    rank = setting.rank(d_out, d_in)
    assert found.channels == pytest.approx(ratio(1 - sparsity, 0), rel=1e-3, abs=1e-6)
    both = ratio(setting.channels(d_out, d_in), rank)
    assert found.both == pytest.approx(both, rel=1e-3, abs=1e-6)

    _, sizes, right = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    shares = []
    for row in x.double().numpy():
        squares = (row[:, None] * sizes * right.T) ** 2
        largest = np.argsort(-np.abs(row))[: round(setting.channels(d_out, d_in) * d_in)]
        left = np.delete(squares, largest, axis=0)[:, rank:]
        shares.append(left.sum() / squares.sum())
    assert found.both_map == pytest.approx(np.mean(shares), rel=1e-3, abs=1e-6)
    assert (found.channels_map == found.both_map) == (rank == 0)


def test_components_hold_all_of_a_weight_of_their_rank():
    weight = drawn(0, 24, 3) @ drawn(1, 3, 24)
    setting = Setting(0.5, 0.5)
    assert setting.rank(24, 24) >= 3
    found = lost(drawn(2, 9, 24), Components.of(weight), setting)
    assert found.both < 1e-9
    assert found.both_map < 1e-9
    assert found.channels > 0.01
    assert found.random > 0.01


def test_chance_is_one_map_for_all_of_a_shape():
    linears = {"a": nn.Linear(12, 8), "b": nn.Linear(12, 8), "c": nn.Linear(8, 12)}
    both = contribution.chance_map(linears, 40, 2, seed=0)
    ab = contribution.chance_map({"a": linears["a"]}, 40, 2, seed=0)
    c = contribution.chance_map({"c": linears["c"]}, 40, 2, seed=0)
    np.testing.assert_allclose(both, (2 * ab + c) / 3)
    assert set(contribution.of_linears(linears, Progress())) == {"a", "b", "c"}
