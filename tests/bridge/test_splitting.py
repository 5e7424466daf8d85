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
    unit = 2.0 ** int(target.abs().max().log2())
    begun = subspace.start(target / unit, 4, 0)
    expected, _ = warm.alternate(target / unit, begun, 26, plain, None)
    assert torch.equal(guarded.sparse, unit * expected.sparse)
    assert guarded.note == "acceleration unsound: 80 plain iterations instead"
    assert WarmSubspace()(target, rank=4, keep=26, iterations=80).note == ""
    definition = FullSVD()(target, rank=4, keep=26, iterations=80)
    assert error(target, guarded) < 1.05 * error(target, definition)


def test_the_guard_reads_both_norms():
    fine = warm.Errors(1.0, 2.0)
    assert warm.sound(warm.Errors(1.0, 2.0), fine)
    assert not warm.sound(warm.Errors(0.9, 2.1), fine)
    assert not warm.sound(warm.Errors(1.1, 1.9), fine)
    assert not warm.sound(warm.Errors(float("nan"), 1.9), fine)
    assert not warm.sound(warm.Errors(0.9, float("inf")), warm.Errors(1.0, float("inf")))


def test_the_errors_are_those_of_what_is_returned(generator):
    target = real_spectrum(53, 31, generator)
    scale = torch.rand(31, generator=generator) + 0.1
    split, errors = warm.finish(target, subspace.start(target, 3, 0), 9, scale)
    residual = (target - split.left @ split.right - split.sparse).double()
    assert errors.scaled == pytest.approx(float(residual.norm()), rel=1e-5)
    assert errors.unscaled == pytest.approx(float((residual / scale).norm()), rel=1e-5)


def nearly_dead(d_out: int, d_in: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """W D and D: real spectrum, an eighth of the channels down to 1e-4 of the median's scale."""
    scale = torch.exp(0.5 * torch.randn(d_in, generator=generator))
    dead = torch.randperm(d_in, generator=generator)[: d_in // 8]
    scale[dead] = 1e-4 * torch.exp(3 * torch.rand(len(dead), generator=generator))
    weight = real_spectrum(d_out, d_in, generator, outlier=1) + 0.1 * torch.randn(
        d_out, d_in, generator=generator
    )
    return weight * scale, scale


SMALL = [(48, 64), (64, 48), (33, 80), (96, 40)]


@pytest.mark.parametrize("seed", range(8))
def test_nearly_dead_channels_are_no_worse_than_in_the_definition(seed):
    """The trap of acceleration: on a channel too small to show in ‖(W - Ŵ) D‖, W is lost."""
    generator = torch.Generator().manual_seed(seed)
    d_out, d_in = SMALL[seed % 4]
    target, scale = nearly_dead(d_out, d_in, generator)
    rank, keep = d_out * d_in // (8 * (d_out + d_in)), 3 * d_in // 8
    definition = FullSVD()(target, rank=rank, keep=keep, iterations=80)
    fast = WarmSubspace()(target, rank=rank, keep=keep, iterations=80, scale=scale)
    assert fast.note == ""
    assert unscaled(target, fast, scale) <= unscaled(target, definition, scale)
    assert error(target, fast) <= error(target, definition)


def test_the_trap_is_there_and_the_guard_sees_it(generator):
    """η at 1.2 of the bound: the scaled error falls, the unscaled one grows a hundredfold."""
    target, scale = nearly_dead(48, 64, generator)
    begun = subspace.start(target, 3, 0)
    _, plain = warm.finish(target, begun, 24, scale)
    momentum = 0.9
    step = Step(momentum, 1.2 * (2 + 2 * momentum) / (1 + 2 * momentum), 24)
    _, blown = warm.alternate(target, begun, 24, [step] * 20, scale)
    assert blown.scaled < plain.scaled
    assert blown.unscaled > 100 * plain.unscaled
    assert not warm.sound(blown, plain)


def test_bfloat16_costs_next_to_nothing_where_it_is_chosen(generator, monkeypatch):
    """And it is not chosen where a few directions hold all but 2⁻⁴ of the norm."""
    target, _ = nearly_dead(96, 120, generator)
    fine, coarse = (WarmSubspace(coarse=c) for c in (False, True))
    errors = [error(target, s(target, rank=8, keep=45, iterations=80)) for s in (fine, coarse)]
    assert errors[0] != errors[1]
    assert errors[1] == pytest.approx(errors[0], rel=0.01)
    monkeypatch.setattr(warm, "native_bfloat16", lambda x: True)
    for matrix, chosen in ((target, coarse), (real_spectrum(97, 97, generator, 1e3), fine)):
        got = WarmSubspace()(matrix, rank=6, keep=36, iterations=80)
        assert torch.equal(got.left, chosen(matrix, rank=6, keep=36, iterations=80).left)


def test_the_schedule_stays_inside_the_stable_region_and_ends_plain():
    schedule = WarmSubspace().schedule(20, 100, coarse=True)
    assert len(schedule) == 19
    assert schedule[-1] == Step(0.0, 1.0, 100, coarse=False)
    assert [s.keep for s in schedule] == sorted(s.keep for s in schedule)
    for momentum, relaxation, _, coarse in schedule[:-1]:
        # The companion matrix of a channel of which nothing is kept.
        step = torch.tensor(
            [[(1 - relaxation) * (1 + momentum), (relaxation - 1) * momentum], [1.0, 0.0]]
        )
        assert torch.linalg.eigvals(step).abs().max() < 1
        assert coarse


def unscaled(target: Tensor, split: Split, scale: Tensor) -> float:
    residual = target.double() - split.left.double() @ split.right.double() - split.sparse.double()
    return float((residual / scale).norm())


def test_rows_are_streamed_in_blocks_without_a_seam(generator, monkeypatch):
    target = real_spectrum(53, 31, generator)
    whole = WarmSubspace()(target, rank=3, keep=9, iterations=40)
    monkeypatch.setattr(subspace, "BLOCK", 16 * 31)
    blocks = WarmSubspace()(target, rank=3, keep=9, iterations=40)
    # Another order of summation, amplified a little by ten iterations.
    assert error(target, blocks) == pytest.approx(error(target, whole), rel=1e-3)
