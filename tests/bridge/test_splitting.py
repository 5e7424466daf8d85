"""The fast alternation answers to the definition."""

import pytest
import torch
from torch import Tensor

from bridge.splitting import FullSVD, Split, WarmSubspace, subspace, warm
from bridge.splitting.subspace import Step
from ctr_kernels.hard_threshold import hard_threshold


def real_spectrum(d_out: int, d_in: int, generator: torch.Generator, outlier: float = 30) -> Tensor:
    """Singular values that fall as a power, a few outlier columns: what a scaled weight is like."""
    q = torch.linalg.qr(torch.randn(d_out, min(d_out, d_in), generator=generator))[0]
    p = torch.linalg.qr(torch.randn(d_in, min(d_out, d_in), generator=generator))[0]
    decay = torch.arange(1, min(d_out, d_in) + 1).pow(-0.7)
    columns = torch.ones(d_in)
    columns[torch.randperm(d_in, generator=generator)[:3]] = outlier
    return (q * decay) @ p.mT * columns


def error(target: Tensor, split: Split) -> float:
    residual = target.double() - split.left.double() @ split.right.double() - split.sparse.double()
    return float(residual.norm() / target.double().norm())


@pytest.mark.parametrize(("d_out", "d_in"), [(65, 120), (120, 65), (97, 97), (300, 61)])
def test_fast_reaches_the_error_of_eighty_full_svds(d_out, d_in, generator):
    target = real_spectrum(d_out, d_in, generator)
    rank, keep = d_out * d_in // (8 * (d_out + d_in)), 3 * d_in // 8
    definition = FullSVD()(target, rank=rank, keep=keep, iterations=80)
    fast = WarmSubspace()(target, rank=rank, keep=keep, iterations=80)
    assert error(target, fast) <= 1.001 * error(target, definition)
    assert fast.left.shape == (d_out, rank)
    assert fast.sparse.count_nonzero(1).tolist() == [keep] * d_out


@pytest.mark.parametrize("outlier", [1e3, 1e4])
def test_channels_of_massive_activations_do_not_drown_the_rest(outlier, generator):
    """√E[x²] of one channel of the demo model's block 11 is 1,700 times the median."""
    target = real_spectrum(97, 97, generator, outlier)
    definition = FullSVD()(target, rank=6, keep=36, iterations=80)
    fast = WarmSubspace()(target, rank=6, keep=36, iterations=80)
    assert error(target, fast) <= 1.001 * error(target, definition)


@pytest.mark.parametrize("iterations", [8, 12, 20])
def test_few_iterations_reach_as_many_of_the_definition(iterations, generator):
    target = real_spectrum(65, 120, generator)
    definition = FullSVD()(target, rank=5, keep=45, iterations=iterations)
    fast = WarmSubspace()(target, rank=5, keep=45, iterations=iterations)
    assert error(target, fast) <= 1.001 * error(target, definition)


@pytest.mark.parametrize("exponent", [-100, -50, 40, 100])
def test_a_common_factor_cancels(exponent, generator):
    """Powers of two are exact in float32, so every bit has to agree."""
    target = real_spectrum(30, 41, generator)
    plain = WarmSubspace()(target, rank=3, keep=9, iterations=40)
    scaled = WarmSubspace()(target * 2.0**exponent, rank=3, keep=9, iterations=40)
    assert torch.equal(scaled.left, plain.left * 2.0**exponent)
    assert torch.equal(scaled.right, plain.right)
    assert torch.equal(scaled.sparse, plain.sparse * 2.0**exponent)


def test_more_iterations_of_the_definition_never_hurt(generator):
    target = real_spectrum(33, 47, generator).double()
    errors = [error(target, FullSVD()(target, rank=3, keep=9, iterations=n)) for n in (1, 2, 5, 20)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("solver", [FullSVD(), WarmSubspace()], ids=["full", "warm"])
def test_recovers_a_matrix_that_is_sparse_plus_low_rank(solver, generator):
    low = 10 * torch.randn(40, 2, generator=generator) @ torch.randn(2, 50, generator=generator)
    spikes = torch.zeros(40, 50)
    for i, row in enumerate(spikes):
        row[torch.randperm(50, generator=generator)[:3]] = 5.0 + i / 10
    split = solver(low + spikes, rank=2, keep=3, iterations=80)
    assert error(low + spikes, split) < 1e-3


@pytest.mark.parametrize("solver", [FullSVD(), WarmSubspace()], ids=["full", "warm"])
def test_without_a_rank_it_is_the_threshold(solver, generator):
    target = torch.randn(5, 9, generator=generator)
    split = solver(target, rank=0, keep=4, iterations=3)
    assert split.left.shape == (5, 0)
    assert torch.equal(split.sparse, hard_threshold.on("reference")(target, 4))


def test_a_rank_that_is_not_there_is_no_trouble(generator):
    """Rank one asked as rank four, and nothing at all."""
    thin = torch.randn(30, 1, generator=generator) @ torch.randn(1, 40, generator=generator)
    for target in (thin, torch.zeros(30, 40)):
        split = WarmSubspace()(target, rank=4, keep=5, iterations=80)
        assert all(part.isfinite().all() for part in split[:3])
        assert (target - split.left @ split.right - split.sparse).norm() <= 1e-3 * thin.norm()


def test_the_same_seed_gives_the_same_split(generator):
    target = real_spectrum(30, 41, generator)
    splits = [WarmSubspace(seed=s)(target, rank=3, keep=9, iterations=40) for s in (0, 0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(splits[0][:3], splits[1][:3], strict=True))
    assert not torch.equal(splits[0].left, splits[2].left)


@pytest.mark.parametrize("momentum", [(1.5, 1.5), (5.0, 9.0)], ids=["grows", "overflows"])
def test_a_blow_up_falls_back_to_the_plain_loop(momentum, generator):
    """Far outside the stable region the guard steps in and the answer is still good."""
    target = real_spectrum(50, 70, generator)
    guarded = WarmSubspace(momentum=momentum)(target, rank=4, keep=26, iterations=80)
    plain = [Step(0.0, 1.0, 26)] * 79
    expected = warm.alternate(target / 2, subspace.start(target / 2, 4, 0), 26, plain)
    assert torch.equal(guarded.sparse, 2 * expected.sparse)
    assert guarded.note == "acceleration unsound: 80 plain iterations instead"
    assert WarmSubspace()(target, rank=4, keep=26, iterations=80).note == ""
    definition = FullSVD()(target, rank=4, keep=26, iterations=80)
    assert error(target, guarded) < 1.05 * error(target, definition)


def test_the_guard_reads_the_unscaled_error_too(generator):
    """Harm on an almost dead channel shows only when the scale is undone."""
    target = torch.randn(20, 30, generator=generator)
    scale = torch.ones(30)
    scale[7] = 1e-4
    zeros = torch.zeros(20, 1), torch.zeros(1, 30)
    fine = Split(*zeros, torch.where(torch.arange(30) < 15, target, 0))
    harm = torch.zeros(20, 30)
    harm[:, 7] = 0.1
    better = torch.where(torch.arange(30) < 20, target, 0)

    def judged(sparse, scale):
        found = warm.errors(target, Split(*zeros, sparse), scale)
        return warm.sound(found, warm.errors(target, fine, scale))

    assert judged(better, scale)
    assert not judged(better + harm, scale)
    assert judged(better + harm, None)


def test_rows_are_streamed_in_blocks_without_a_seam(generator, monkeypatch):
    target = real_spectrum(53, 31, generator)
    whole = WarmSubspace()(target, rank=3, keep=9, iterations=40)
    monkeypatch.setattr(subspace, "BLOCK", 16 * 31)
    blocks = WarmSubspace()(target, rank=3, keep=9, iterations=40)
    # Another order of summation, amplified a little by ten iterations.
    assert error(target, blocks) == pytest.approx(error(target, whole), rel=1e-3)
