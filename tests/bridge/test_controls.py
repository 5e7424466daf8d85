"""Controls match what they control for."""

import pytest
import torch

from bridge.controls import factored_norm, random_low_rank_like, sparse_like
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
