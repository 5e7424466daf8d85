"""Each closed form against its formula, and what it is optimal for."""

import math
import time

import numpy as np
import pytest
import scipy.linalg
import torch

from bridge.methods.loftq import LoftQ
from bridge.methods.lqer import LQER
from bridge.methods.qera import QERA, QERAApproximate
from bridge.methods.zeroquant import ZeroQuantV2
from bridge.moments import shrink
from bridge.operators import LowRank, Sum
from bridge.quantized import Quantized
from bridge.quantizers import MXINT, RoundToNearest
from bridge.reconstruct import reconstructed, remainder
from bridge.statistics import second_moment
from mech.errors import BadInput

SHAPES = [(7, 13), (13, 7), (33, 20), (20, 33), (1, 5), (5, 1)]
COARSE = RoundToNearest(2, 5)


@pytest.fixture(params=SHAPES, ids=str)
def layer(request, generator):
    """Weights in float64, and correlated inputs of channels of different size."""
    d_out, d_in = request.param
    return layer_of(d_out, d_in, 300, generator)


def layer_of(d_out, d_in, tokens, generator):
    weight = torch.randn(d_out, d_in, generator=generator, dtype=torch.float64)
    mixing = torch.eye(d_in) + torch.randn(d_in, d_in, generator=generator) / math.sqrt(d_in)
    x = torch.randn(tokens, d_in, generator=generator) @ mixing * torch.logspace(-1, 1, d_in)
    return weight, x.double()


def compressed(named, weight, x):
    statistic = named.statistic
    return named(weight, statistic.update(statistic.init(weight.shape[1]), x))


def svd(matrix, rank):
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


def restated(weight, x, root, rank, quantizer=COARSE):
    """Ŵ + SVD_r((W - Ŵ) root) root⁻¹, root a matrix: QERA's theorem 1 with root = R^½."""
    quantized = quantizer(weight).dense().numpy()
    low = svd((weight.numpy() - quantized) @ root, rank)
    return quantized + scipy.linalg.solve(root, low.T, assume_a="sym").T


@pytest.mark.parametrize("rank", [1, 3])
def test_each_is_its_formula(layer, rank):
    weight, x = layer
    rank = min(rank, *weight.shape)
    moment = (x.mT @ x / len(x)).numpy()
    roots = {
        ZeroQuantV2: np.eye(len(moment)),
        LQER: np.diag(x.abs().mean(0).numpy()),
        QERAApproximate: np.diag(np.sqrt(np.diag(moment))),
    }
    for kind, root in roots.items():
        found = compressed(kind(COARSE, rank), weight, x).dense()
        np.testing.assert_allclose(found, restated(weight, x, root, rank), atol=1e-6)
    for share in (0.0, 0.4):
        shrunk = (1 - share) * moment + share * np.diag(np.diag(moment))
        root = np.real(np.asarray(scipy.linalg.sqrtm(shrunk)))
        found = compressed(QERA(COARSE, rank, share), weight, x).dense()
        np.testing.assert_allclose(found, restated(weight, x, root, rank), atol=1e-6)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_loftq_is_its_formula(layer, iterations):
    weight, x = layer
    rank = min(3, *weight.shape)
    low = quantized = np.zeros(weight.shape)
    for _ in range(iterations):
        quantized = COARSE(weight - torch.from_numpy(low)).dense().numpy()
        low = svd(weight.numpy() - quantized, rank)
    found = compressed(LoftQ(COARSE, rank, iterations), weight, x)
    np.testing.assert_allclose(found.dense(), quantized + low, atol=1e-6)
    if iterations == 1:
        first = compressed(ZeroQuantV2(COARSE, rank), weight, x)
        assert torch.equal(found.dense(), first.dense())


@pytest.mark.parametrize("rank", [1, 2, 4, 6])
def test_on_what_it_was_fitted_to_the_exact_form_is_best(rank, generator):
    for shape in [(24, 16), (16, 24)]:
        weight, x = layer_of(*shape, 300, generator)

        def error(method, weight=weight, x=x):
            return float(((weight - compressed(method, weight, x).dense()) @ x.mT).norm())

        best = error(QERA(COARSE, rank, 0.0))
        for kind in (ZeroQuantV2, LQER, QERAApproximate, LoftQ):
            assert best < error(kind(COARSE, rank))
        # And no other L of that rank near it is better.
        operator = compressed(QERA(COARSE, rank, 0.0), weight, x)
        assert isinstance(operator, Sum)
        base, low = operator.each()
        assert isinstance(low, LowRank)
        for _ in range(20):
            left, right = (
                term + 1e-3 * torch.randn(len(term), len(term.mT), generator=generator)
                for term in (low.left, low.right)
            )
            moved = weight - base.dense() - left @ right
            assert float((moved @ x.mT).norm()) > best


def test_the_shrinkage_by_default_is_that_of_as_many_tokens_as_channels(generator):
    weight, x = layer_of(12, 20, 30, generator)
    found = compressed(QERA(COARSE, 3), weight, x).dense()
    assert torch.equal(found, compressed(QERA(COARSE, 3, 0.4), weight, x).dense())


def test_all_shrinkage_is_the_diagonal_form(layer):
    weight, x = layer
    exact = compressed(QERA(COARSE, 2, 1.0), weight, x).dense()
    torch.testing.assert_close(exact, compressed(QERAApproximate(COARSE, 2), weight, x).dense())


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
@pytest.mark.parametrize("tokens", [1, 5, 20])
def test_with_fewer_tokens_than_channels_nothing_is_divided_by(shape, tokens, generator):
    """R is singular: its root has no inverse, and an inverse of what rounding leaves blows up."""
    d_out, d_in = shape
    weight, x = layer_of(d_out, d_in, tokens, generator)
    other = layer_of(d_out, d_in, 300, torch.Generator().manual_seed(0))[1]
    error = weight - COARSE(weight).dense()
    for share in (0.0, None):
        left = weight - compressed(QERA(COARSE, 3, share), weight, x).dense()
        # A projection of the error: no direction of the input makes it larger.
        assert float(left.norm()) <= float(error.norm())
        assert float((left @ other.mT).norm()) <= float((error @ other.mT).norm()) * (1 + 1e-9)


@pytest.mark.parametrize("dead", [0, 4])
def test_the_smaller_side_gives_what_the_larger_gives(dead, generator):
    """With dead channels the smaller side has no factor to be had from."""
    error = torch.randn(30, 12, generator=generator, dtype=torch.float64)
    x = torch.randn(40, 12, generator=generator, dtype=torch.float64)
    x[:, :dead] = 0
    metric = x.mT @ x
    values = torch.linalg.eigh(error @ metric @ error.mT).eigenvectors[:, -4:]
    found = reconstructed(error, 4, metric).matrix()
    torch.testing.assert_close(found, values @ values.mT @ error)


def test_factors_are_balanced_and_of_the_weights_format(layer):
    weight, x = layer
    rank = min(3, *weight.shape)
    operator = compressed(QERA(COARSE, rank), weight.bfloat16(), x)
    assert isinstance(operator, Sum)
    base, low = operator.each()
    assert isinstance(base, Quantized)
    assert isinstance(low, LowRank)
    assert low.left.dtype == low.right.dtype == torch.bfloat16
    assert low.rank == rank
    gram = low.left.float().mT @ low.left.float()
    torch.testing.assert_close(gram, low.right.float() @ low.right.float().mT, atol=2e-2, rtol=0.02)
    assert operator.bits() == base.bits() + 16 * rank * sum(weight.shape)


def test_without_a_rank_or_an_error_the_quantised_weight_is_left_alone(generator):
    weight, x = layer_of(6, 10, 30, generator)
    for kind in (ZeroQuantV2, LQER, QERAApproximate, QERA, LoftQ):
        assert isinstance(compressed(kind(COARSE, 0), weight, x), Quantized)
    on_grid = MXINT(4, 5)(weight).dense()
    for kind in (ZeroQuantV2, LQER, QERAApproximate, QERA, LoftQ):
        assert torch.equal(compressed(kind(MXINT(4, 5), 3), on_grid, x).dense(), on_grid)


def test_bad_input_is_told():
    error = torch.ones(3, 4)
    with pytest.raises(BadInput, match="rank -1"):
        reconstructed(error, -1)
    with pytest.raises(BadInput, match="second moment is not finite"):
        reconstructed(error, 1, torch.full((4,), torch.nan))
    with pytest.raises(BadInput, match="error of a quantised weight is not finite"):
        reconstructed(error * torch.inf, 1)
    with pytest.raises(BadInput, match=r"shrinkage 1\.5"):
        QERA(shrinkage=1.5)
    with pytest.raises(BadInput, match="iterations 0"):
        LoftQ(iterations=0)


def test_the_statistic_of_lqer_does_not_see_batches(generator):
    x = torch.randn(20, 7, generator=generator).double()
    statistic = LQER.statistic
    whole = statistic.update(statistic.init(7), x)
    parts = [statistic.update(statistic.init(7), part) for part in x.split(6)]
    merged = parts[0]
    for part in parts[1:]:
        merged = statistic.merge(merged, part)
    torch.testing.assert_close(whole.mean, merged.mean)
    torch.testing.assert_close(whole.mean, x.abs().mean(0))


def test_shrinking_leaves_the_diagonal(generator):
    x = torch.randn(5, 9, generator=generator).double()
    seen = second_moment.update(second_moment.init(9), x)
    torch.testing.assert_close(shrink(seen.mean, 0.3).diagonal(), seen.mean.diagonal())


def test_it_is_at_least_as_fast_as_a_root_and_its_inverse(generator, measured):
    weight, x = layer_of(96, 256, 600, generator)
    seen = second_moment.update(second_moment.init(256), x)
    moment, quantized = seen.mean.numpy(), COARSE(weight).dense()

    def root_and_solve():
        root = np.real(np.asarray(scipy.linalg.sqrtm(moment)))
        low = svd((weight - quantized).numpy() @ root, 8)
        scipy.linalg.solve(root, low.T)

    def seconds(run):
        started = time.process_time()
        run()
        return time.process_time() - started

    ratios = []
    for _ in range(3):
        slow = seconds(root_and_solve)
        ratios.append(slow / seconds(lambda: remainder(weight, COARSE(weight), 8, seen.mean)))
    middle = sorted(ratios)[1]
    measured("CPU time of sqrtm and solve over QERA's, 96 x 256", f"{middle:.1f}", "at least 1")
    assert middle >= 1
