"""Controls match what they control for."""

import pytest
import torch

from bridge.controls import (
    factored_norm,
    permuted_like,
    random_low_rank_like,
    removed,
    sparse_as_far,
    sparse_like,
    without_random_outputs,
    without_top,
)
from bridge.methods.oats import OATS
from bridge.methods.wanda import score
from bridge.operators import LowRank, Sparse
from bridge.statistics import diagonal_moment


@pytest.fixture
def term(generator):
    return LowRank(
        torch.randn(13, 3, generator=generator) * 7, torch.randn(3, 19, generator=generator)
    )


@pytest.mark.parametrize("scaled", [False, True])
def test_a_random_term_has_rank_and_norm_of_the_true_one(term, scaled, generator):
    scale = torch.logspace(-2, 2, 19, dtype=torch.float64) if scaled else None
    columns = torch.ones(19, dtype=torch.float64) if scale is None else scale
    control = random_low_rank_like(term, generator, scale=scale)
    ours, theirs = control.dense().double() * columns, term.dense().double() * columns
    assert ours.norm() == pytest.approx(float(theirs.norm()), rel=1e-5)
    assert torch.linalg.matrix_rank(control.left.double() @ control.right.double()) == 3
    assert control.rank == 3
    # Unrelated to the term: of two random 3-dimensional parts of 247 little is shared.
    cosine = (ours * theirs).sum() / (ours.norm() * theirs.norm())
    assert abs(cosine) < 0.9


def test_the_draw_follows_the_generator(term):
    draws = [random_low_rank_like(term, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0].dense(), draws[1].dense())
    assert not torch.equal(draws[0].dense(), draws[2].dense())


def test_the_norm_of_factors_is_the_norm_of_the_product(term):
    direct = (term.left.double() @ term.right.double()).norm()
    torch.testing.assert_close(factored_norm(term.left.double(), term.right.double()), direct)


def test_a_sparse_control_has_the_nonzeros_of_the_term_in_every_row(generator):
    weight = torch.randn(17, 23, generator=generator)
    weight[:, 4] = 0
    moment = diagonal_moment.update(
        diagonal_moment.init(23), torch.randn(50, 23, generator=generator)
    )
    term = next(t for t in OATS()(weight, moment).modules() if type(t) is Sparse)
    term.weight[3] = 0
    control = sparse_like(term, weight, moment)
    assert torch.equal(control.weight.count_nonzero(1), term.weight.count_nonzero(1))
    kept = control.weight != 0
    assert torch.equal(control.weight[kept], weight[kept])
    ranked = score(weight, moment)
    for row, mask in zip(ranked, kept, strict=True):
        if mask.any():
            assert row[mask].min() >= row[~mask].max()


def test_zeros_of_the_weight_are_not_counted_as_kept(generator):
    """On dead channels every score is zero: only weights that are there fill the count."""
    weight = torch.randn(3, 7, generator=generator)
    weight[:, 2] = 0
    moment = diagonal_moment.update(diagonal_moment.init(7), torch.zeros(5, 7))
    control = sparse_like(Sparse(torch.ones(3, 7).tril(3)), weight, moment)
    assert control.weight.count_nonzero(1).tolist() == [4, 5, 6]


@pytest.mark.parametrize("side", ["left", "right"])
def test_permuted_factors_keep_the_scaled_spectrum_and_move_one_side(term, side, generator):
    scale = torch.logspace(-2, 2, 19, dtype=torch.float64)
    control = permuted_like(term, generator, side=side, scale=scale)
    ours, theirs = control.dense().double() * scale, term.dense().double() * scale
    torch.testing.assert_close(
        torch.linalg.svdvals(ours), torch.linalg.svdvals(theirs), rtol=1e-4, atol=1e-3
    )
    assert not torch.allclose(ours, theirs)
    moved, kept = (control.left, control.right) if side == "left" else (control.right, control.left)
    was, same = (term.left, term.right) if side == "left" else (term.right, term.left)
    assert torch.equal(kept, same)
    if side == "left":
        assert sorted(moved.tolist()) == sorted(was.tolist())
    else:
        columns, before = (moved.double() * scale).mT, (was.double() * scale).mT
        distance = torch.cdist(columns, before)
        torch.testing.assert_close(
            distance.min(1).values, torch.zeros(19, dtype=torch.float64), atol=1e-3, rtol=0
        )
        assert distance.argmin(1).sort().values.tolist() == list(range(19))


def test_the_top_of_the_scaled_matrix_goes_and_the_rest_stays(generator):
    weight = torch.randn(13, 19, generator=generator)
    scale = torch.logspace(-1, 1, 19, dtype=torch.float64)
    before = torch.linalg.svdvals(weight.double() * scale)
    left = without_top(weight, 2, scale=scale).dense()
    after = torch.linalg.svdvals(left.double() * scale)
    torch.testing.assert_close(after[:11], before[2:], rtol=1e-5, atol=0)
    assert removed(left, weight, scale=scale) == pytest.approx(
        float(before[:2].square().sum() / before.square().sum()), rel=1e-5
    )


def test_random_outputs_are_gone_and_so_little_of_the_norm(generator):
    weight = torch.randn(40, 19, generator=generator)
    left = without_random_outputs(weight, 4, generator).dense()
    assert torch.linalg.matrix_rank(left.double() - weight.double(), rtol=1e-5) == 4
    lost = [
        removed(without_random_outputs(weight, 4, generator).dense(), weight, scale=torch.ones(19))
        for _ in range(50)
    ]
    # E ‖QQᵀW‖² = r / d_out ‖W‖²; 50 draws of a share whose own spread is under a third of it.
    assert sum(lost) / 50 == pytest.approx(0.1, rel=0.15)


def test_a_sparse_matrix_as_far_as_another_and_with_no_entry_too_many(generator):
    weight = torch.randn(17, 23, generator=generator)
    weight[:, 4] = 0
    moment = diagonal_moment.update(
        diagonal_moment.init(23), torch.randn(50, 23, generator=generator)
    )
    other = next(t for t in OATS()(weight, moment).modules() if type(t) is Sparse).weight.clone()
    other[3] = weight[3]
    other[5] = 0
    control = sparse_as_far(other, weight, moment)
    root = moment.mean.sqrt()
    allowed = ((weight - other).double() * root).norm(dim=1)
    far = ((weight - control.weight).double() * root).norm(dim=1)
    assert (far <= allowed * (1 + 1e-6)).all()
    ranked = score(weight, moment).double()
    for row in range(17):
        kept = control.weight[row] != 0
        assert torch.equal(control.weight[row][kept], weight[row][kept])
        if kept.any():
            # One entry less would be further away than is allowed.
            smaller = far[row] ** 2 + ranked[row][kept].min() ** 2
            assert smaller > allowed[row] ** 2
    assert control.weight[3].count_nonzero() == 22
    assert control.weight[5].count_nonzero() == 0


def test_nothing_removed_and_everything_removed(generator):
    weight = torch.randn(5, 7, generator=generator)
    scale = torch.rand(7, generator=generator) + 0.1
    assert removed(weight, weight, scale=scale) == 0
    assert removed(torch.zeros_like(weight), weight, scale=scale) == 1
