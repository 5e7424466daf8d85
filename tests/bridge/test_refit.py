"""Each half of a refit is the best there is, and the error never rises."""

from itertools import pairwise
from typing import Any

import pytest
import torch

from bridge.budget import sparse_low_rank
from bridge.methods.low_rank import MomentLowRank, PlainLowRank, ScaledLowRank, rank_within
from bridge.methods.oats import OATS
from bridge.methods.oats_moment import MomentOATS
from bridge.methods.sparse_only import SparseOnly
from bridge.methods.sparsegpt import SparseGPT
from bridge.moments import factor
from bridge.operators import LowRank, Sparse
from bridge.refit import Metric, objective, refitted, regressed, values
from bridge.splitting import FullSVD, Split
from bridge.statistics import SecondMoment
from mech.errors import BadInput

SHAPES = [(7, 13), (24, 9), (33, 40)]


def seen_of(d_in: int, generator, tokens: int = 500) -> SecondMoment:
    """Correlated, of sizes a hundredfold apart."""
    x = torch.randn(tokens, d_in, generator=generator, dtype=torch.float64)
    x = x @ torch.randn(d_in, d_in, generator=generator, dtype=torch.float64)
    x *= torch.logspace(-1, 1, d_in, dtype=torch.float64)[torch.randperm(d_in, generator=generator)]
    return SecondMoment(x.mT @ x, tokens)


@pytest.fixture(params=SHAPES, ids=str)
def layer(request, generator):
    weight = torch.randn(request.param, generator=generator, dtype=torch.float64)
    return weight, seen_of(request.param[1], generator)


def metric_of(seen: SecondMoment) -> Metric:
    found = factor(seen.mean, 0.01)
    return Metric(found.moment, found.upper)


def start_of(weight, rank: int = 2) -> Split:
    return FullSVD()(weight, rank=rank, keep=weight.shape[1] // 3, iterations=3)


def error(weight, split: Split, metric: Metric) -> float:
    return objective(weight - split.left @ split.right - split.sparse, metric)


def test_the_objective_is_the_trace(layer):
    weight, seen = layer
    metric = metric_of(seen)
    expected = torch.trace(weight @ metric.moment @ weight.mT)
    assert objective(weight, metric) == pytest.approx(float(expected))


def test_no_half_step_of_a_refit_raises_the_error(layer):
    weight, seen = layer
    metric, split = metric_of(seen), start_of(weight)
    errors = [error(weight, split, metric)]
    for _ in range(4):
        for steps in (1, 3):
            low = split.left @ split.right
            fitted = values(weight - low, split.sparse != 0, metric, split.sparse, steps)
            split = split._replace(sparse=fitted)
            errors.append(error(weight, split, metric))
        left, right = regressed(weight - split.sparse, metric, 2)
        split = split._replace(left=left, right=right)
        errors.append(error(weight, split, metric))
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(errors))
    assert errors[-1] < 0.9 * errors[0]


def test_conjugate_gradients_end_at_the_least_squares_of_every_row(layer):
    weight, seen = layer
    metric, mask = metric_of(seen), start_of(weight).sparse != 0
    found = values(weight, mask, metric, torch.zeros_like(weight), steps=60)
    assert not bool(found[~mask].any())
    for row, kept, got in zip(weight, mask, found, strict=True):
        right = (row @ metric.moment)[kept]
        expected = torch.linalg.solve(metric.moment[kept][:, kept], right)
        torch.testing.assert_close(got[kept], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_the_regression_is_the_truncated_svd_behind_a_root(layer, rank):
    weight, seen = layer
    metric = metric_of(seen)
    left, right = regressed(weight, metric, rank)
    assert left.shape == (len(weight), rank)
    values_, vectors = torch.linalg.eigh(metric.moment)
    root = (vectors * values_.sqrt()) @ vectors.mT
    u, s, vt = torch.linalg.svd(weight @ root, full_matrices=False)
    expected = (u[:, :rank] * s[:rank]) @ vt[:rank] @ torch.linalg.inv(root)
    torch.testing.assert_close(left @ right, expected, rtol=1e-6, atol=1e-6)


def test_a_refit_keeps_the_mask_and_the_rank(layer):
    weight, seen = layer
    split = start_of(weight)
    after = refitted(weight, split, metric_of(seen), rounds=2, steps=3)
    assert torch.equal(after.sparse != 0, split.sparse != 0)
    assert after.left.shape == split.left.shape
    same = refitted(weight, split, metric_of(seen), rounds=0, steps=3)
    assert torch.equal(same.sparse, split.sparse)


def output_error(weight, operator, seen) -> float:
    difference = weight - operator.dense()
    return float(((difference @ seen.mean) * difference).sum().sqrt())


def test_it_ends_below_oats_at_the_same_budget(layer):
    weight, seen = layer
    reference = OATS(rank_ratio=0.3)(weight, seen.diagonal)
    budget = reference.parameters_kept()
    kept = sparse_low_rank(*weight.shape, compression=0.5, rank_ratio=0.3).kept_per_row
    before, errors = output_error(weight, reference, seen), []
    for masks in (0, 2):
        method = MomentOATS(rank_ratio=0.3, masks=masks, shrinkage=0.0, damping=1e-6)
        operator = method(weight, seen)
        terms: dict[type, Any] = {type(term): term for term in operator.modules()}
        assert operator.parameters_kept() <= budget
        if masks == 0:
            assert terms[Sparse].dense().count_nonzero(1).unique().tolist() == [kept]
        errors.append(output_error(weight, operator, seen))
    assert max(errors) < 0.95 * before


def test_more_rounds_are_never_worse_in_their_own_metric(layer):
    weight, seen = layer

    def at(masks: int, rounds: int) -> float:
        method = MomentOATS(masks=masks, rounds=rounds, shrinkage=0.0, damping=1e-9)
        return output_error(weight, method(weight, seen), seen)

    for masks in (0, 3):
        errors = [at(masks, rounds) for rounds in (0, 1, 2, 5)]
        assert all(after <= before * (1 + 1e-9) for before, after in pairwise(errors))
    assert at(3, 0) <= at(1, 0) <= at(0, 0)


def test_sparse_only_spends_the_budget_on_one_term(layer):
    weight, seen = layer
    operator = SparseOnly()(weight, seen)
    assert type(operator) is Sparse
    assert weight.numel() // 2 - len(weight) <= operator.parameters_kept() <= weight.numel() // 2


def test_values_that_are_refitted_beat_those_of_sparsegpt(generator):
    weight = torch.randn(33, 128, generator=generator, dtype=torch.float64)
    seen = seen_of(128, generator, 900)
    fitted = SparseOnly(steps=60, shrinkage=0.0)(weight, seen)
    assert output_error(weight, fitted, seen) < output_error(
        weight, SparseGPT()(weight, seen), seen
    )


def test_each_low_rank_is_the_best_in_its_metric(layer):
    weight, seen = layer
    operators = [
        PlainLowRank()(weight, PlainLowRank.statistic.init(weight.shape[1])),
        ScaledLowRank()(weight, seen.diagonal),
        MomentLowRank(damping=1e-9)(weight, seen),
    ]
    rank = rank_within(*weight.shape, compression=0.5)
    assert all(isinstance(found, LowRank) and found.rank == rank for found in operators)
    assert all(2 * found.parameters_kept() <= weight.numel() for found in operators)
    root = seen.diagonal.mean.sqrt()
    measures = [
        lambda difference: float(difference.norm()),
        lambda difference: float((difference * root).norm()),
        lambda difference: float(((difference @ seen.mean) * difference).sum().sqrt()),
    ]
    for best, measure in enumerate(measures):
        errors = [measure(weight - found.dense()) for found in operators]
        assert min(errors) >= errors[best] * (1 - 1e-6)
        assert sorted(errors)[1] > 1.001 * errors[best]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_rank_is_spent_on_a_dead_channel(shape, generator):
    """The least error of rank r is the sum of the smallest eigenvalues of W R Wᵀ, dead or not."""
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    whole = seen_of(shape[1], generator)
    alive = torch.arange(shape[1]) % 4 != 0
    weight[:, ~alive] *= 10
    seen = SecondMoment(whole.total * alive * alive[:, None], whole.tokens)
    found = MomentLowRank(damping=0.0)(weight, seen).dense()
    rank = rank_within(*shape, compression=0.5)
    least = torch.linalg.eigvalsh(weight @ seen.mean @ weight.mT)[: shape[0] - rank].sum()
    difference = weight - found
    torch.testing.assert_close(((difference @ seen.mean) * difference).sum(), least)


@pytest.mark.parametrize("kind", [PlainLowRank, ScaledLowRank, MomentLowRank, SparseOnly])
def test_a_budget_that_cannot_be_is_refused(kind):
    with pytest.raises(BadInput, match="compression 1"):
        kind(compression=1.0)


@pytest.mark.parametrize(
    ("field", "value"), [("iterations", 0), ("masks", -1), ("rank_ratio", 1.0)]
)
def test_settings_that_are_none_are_refused(field, value):
    with pytest.raises(BadInput, match=field):
        MomentOATS(**{field: value})
