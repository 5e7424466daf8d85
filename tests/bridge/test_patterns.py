"""Patterns keep exactly as many as they say, and the right ones."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bridge.patterns import LayerWise, NOfM, RowWise, best_of_each
from mech.errors import BadInput

PERCENT = st.integers(1, 99)
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 13))
SCORES = st.sampled_from([0.0, 1.0, 1.0 + 2**-23, 2.0, 1e-40])


def scores(shape):
    d_out, d_in = shape
    return st.lists(SCORES, min_size=d_out * d_in, max_size=d_out * d_in).map(
        lambda values: torch.tensor(values).reshape(d_out, d_in)
    )


def plainly(values: list[float], kept: int) -> list[bool]:
    order = sorted(range(len(values)), key=lambda j: (-values[j], j))
    return [j in order[:kept] for j in range(len(values))]


@given(SHAPES.flatmap(scores), PERCENT)
def test_row_wise_keeps_the_best_of_every_row(score, percent):
    pruned = score.shape[1] * (100 - percent) // 100
    pattern = RowWise(percent / 100)
    mask = pattern.mask(score)
    assert mask.tolist() == [plainly(row, score.shape[1] - pruned) for row in score.tolist()]
    assert pattern.kept(*score.shape) == mask.sum()


@given(SHAPES.flatmap(scores), PERCENT)
def test_layer_wise_keeps_the_best_of_the_matrix(score, percent):
    pruned = score.numel() * (100 - percent) // 100
    pattern = LayerWise(percent / 100)
    mask = pattern.mask(score)
    assert mask.flatten().tolist() == plainly(score.flatten().tolist(), score.numel() - pruned)
    assert pattern.kept(*score.shape) == mask.sum()


@given(st.integers(1, 4).flatmap(lambda n: scores((3, 5 * n))), st.integers(1, 4))
def test_n_of_m_keeps_n_of_every_m(score, keep):
    pattern = NOfM(keep=keep, of=5)
    groups = score.reshape(-1, 5)
    expected = [plainly(group, keep) for group in groups.tolist()]
    assert pattern.mask(score).reshape(-1, 5).tolist() == expected
    assert pattern.kept(*score.shape) == pattern.mask(score).sum()
    assert Fraction(pattern.density) == Fraction(keep / 5)


def test_one_of_four_keeps_one():
    """Written 1:4, releases disagree whether one is kept or pruned."""
    assert NOfM(1, 4).mask(torch.tensor([[1.0, 4.0, 2.0, 3.0]])).tolist() == [[0, 1, 0, 0]]


@given(SHAPES.flatmap(scores), st.data())
def test_every_row_may_have_its_own_count(score, data):
    d_out, d_in = score.shape
    kept = data.draw(st.lists(st.integers(0, d_in), min_size=d_out, max_size=d_out))
    expected = [plainly(row, k) for row, k in zip(score.tolist(), kept, strict=True)]
    assert best_of_each(score, torch.tensor(kept)).tolist() == expected


def test_the_decimal_counts_and_not_its_nearest_float():
    """int(10 * (1 - 0.9)) is 0 in floats."""
    assert RowWise(0.9).kept(1, 10) == 9
    assert LayerWise(0.9).kept(1, 10) == 9


@pytest.mark.parametrize("pattern", [RowWise, LayerWise])
@pytest.mark.parametrize("density", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_refuses_a_density_that_keeps_all_or_nothing(pattern, density):
    with pytest.raises(BadInput, match="density"):
        pattern(density)


@pytest.mark.parametrize(("keep", "of"), [(0, 4), (4, 4), (5, 4), (-1, 4)])
def test_refuses_groups_that_keep_all_or_nothing(keep, of):
    with pytest.raises(BadInput, match="keep"):
        NOfM(keep, of)


def test_refuses_rows_that_do_not_split():
    with pytest.raises(BadInput, match="rows of 10 do not split into groups of 4"):
        NOfM(2, 4).mask(torch.ones(3, 10))
