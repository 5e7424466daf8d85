"""SparseGPT is the loop of its paper, keeps exact counts, and takes less time."""

import time

import pytest
import torch

from bridge.methods.sparsegpt import SparseGPT
from bridge.methods.wanda import Wanda
from bridge.patterns import LayerWise, NOfM, RowWise
from bridge.statistics import SecondMoment
from mech.errors import BadInput


def plain_sparsegpt(weight, moment, *, density=0.5, group=None, block=128, damping=0.01):
    """The loop of the paper, column by column, in the dtype of `weight`.

    `group` is (keep, of) for N:M; without it all rows of a block compete.
    """
    weight, kept = weight.clone(), torch.zeros(weight.shape, dtype=torch.bool)
    moment = moment.to(weight.dtype, copy=True)
    dead = moment.diagonal() == 0
    moment.diagonal()[dead] = moment.diagonal()[~dead].mean()
    moment.diagonal()[~dead] += damping * moment.diagonal()[~dead].mean()
    weight[:, dead] = 0
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment))
    upper = torch.linalg.cholesky(inverse, upper=True)
    d_in = weight.shape[1]
    for begin in range(0, d_in, block):
        end = min(begin + block, d_in)
        errors = torch.zeros_like(weight[:, begin:end])
        for j in range(begin, end):
            stop = end if group is None else j + group[1]
            if j == begin or (group and j % group[1] == 0):
                score = (weight[:, j:stop] / upper.diagonal()[j:stop]).square()
                kept[:, j:stop] = _largest(score, density, group)
            error = torch.where(kept[:, j], 0, weight[:, j]) / upper[j, j]
            weight[:, j:end] -= error[:, None] @ upper[None, j, j:end]
            weight[:, j] = torch.where(kept[:, j], weight[:, j], 0)
            errors[:, j - begin] = error
        weight[:, end:] -= errors @ upper[begin:end, end:]
    return weight


def _largest(score, density, group):
    if group is None:
        pruned = int(score.numel() * (1 - density))
        order = score.flatten().argsort(stable=True, descending=True)
        rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        return (rank < score.numel() - pruned).view(score.shape)
    top = score.topk(group[0], dim=1).indices
    return torch.zeros(score.shape, dtype=torch.bool).scatter_(1, top, True)


def seen_of(d_in: int, generator, tokens: int = 300, spread: float = 3) -> SecondMoment:
    """Of correlated channels whose sizes grow by `spread` powers of ten from first to last."""
    x = torch.randn(tokens, d_in, generator=generator, dtype=torch.float64)
    mixed = x @ torch.randn(d_in, d_in, generator=generator, dtype=torch.float64)
    mixed *= torch.logspace(0, spread, d_in, dtype=torch.float64)
    return SecondMoment(mixed.mT @ mixed, tokens)


@pytest.mark.parametrize("shape", [(1, 5), (7, 13), (33, 64), (19, 301), (40, 129)])
@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("density", [0.5, 0.3])
def test_it_is_the_loop_of_the_paper(shape, dead, density, generator):
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    seen = seen_of(shape[1], generator)
    if dead:
        alive = torch.arange(shape[1]) % 4 != 1
        seen = SecondMoment(seen.total * alive * alive[:, None], seen.tokens)
    expected = plain_sparsegpt(weight, seen.mean, density=density)
    found = SparseGPT(LayerWise(density))(weight, seen).dense()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    # In float32 rounding may choose another of two entries that are nearly equal; not here.
    single = SparseGPT(LayerWise(density))(weight.float(), seen).dense()
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(7, 12), (33, 64), (5, 300)])
@pytest.mark.parametrize("group", [(2, 4), (1, 4), (1, 2), (4, 6)])
@pytest.mark.parametrize("block", [128, 24])
def test_groups_see_the_weights_as_they_are_when_they_are_reached(shape, group, block, generator):
    if shape[1] % group[1]:
        pytest.skip("rows do not split into groups")
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    seen = seen_of(shape[1], generator)
    expected = plain_sparsegpt(weight, seen.mean, group=group, block=block // group[1] * group[1])
    found = SparseGPT(NOfM(*group), block=block)(weight, seen).dense()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    counts = (found != 0).view(shape[0], -1, group[1]).sum(2)
    assert bool((counts == group[0]).all())


@pytest.mark.parametrize("block", [1, 8, 50, 128])
@pytest.mark.parametrize("pattern", [LayerWise(0.37), RowWise(0.37)])
def test_every_block_keeps_exactly_what_its_pattern_keeps(block, pattern, generator):
    weight = torch.randn(21, 150, generator=generator, dtype=torch.float64)
    found = SparseGPT(pattern, block=block)(weight, seen_of(150, generator)).dense()
    for part in found.split(block, dim=1):
        assert int((part != 0).sum()) == pattern.kept(*part.shape)
        if isinstance(pattern, RowWise):
            assert (part != 0).sum(1).unique().tolist() == [pattern.kept(1, part.shape[1])]


def test_rows_that_do_not_split_into_groups_are_refused(generator):
    with pytest.raises(BadInput, match="groups of 4"):
        SparseGPT(NOfM(2, 4))(torch.randn(3, 10, generator=generator), seen_of(10, generator))
    with pytest.raises(BadInput, match="block 0"):
        SparseGPT(block=0)


def output_error(difference, seen):
    return float(((difference.double() @ seen.total) * difference).sum().sqrt())


def test_it_beats_wanda_where_it_was_calibrated(generator):
    """Channels of one size: where they grow from left to right, equal blocks are a bad budget."""
    weight, seen = torch.randn(33, 301, generator=generator), seen_of(301, generator, 900, spread=0)
    errors = [
        output_error(weight - operator.dense(), seen)
        for operator in (SparseGPT()(weight, seen), Wanda()(weight, seen.diagonal))
    ]
    assert errors[0] < 0.8 * errors[1]


def test_a_singular_moment_is_damped_aloud(generator):
    weight = torch.randn(5, 40, generator=generator)
    seen = seen_of(40, generator, tokens=3)
    assert SparseGPT()(weight, seen).note == ""
    operator = SparseGPT(damping=0.0)(weight, seen)
    assert "damping raised from 0" in operator.note
    assert operator.dense().isfinite().all()


def test_it_takes_less_time_than_column_by_column(generator, measured):
    weight, seen = torch.randn(576, 576, generator=generator), seen_of(576, generator, 700)
    moment = seen.mean.float()

    def seconds(work) -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    pairs = [
        (
            seconds(lambda: plain_sparsegpt(weight, moment)),
            seconds(lambda: SparseGPT()(weight, seen)),
        )
        for _ in range(4)
    ]
    ratio = min(plain for plain, _ in pairs) / min(ours for _, ours in pairs)
    measured("SparseGPT, 576 × 576, CPU time of the plain loop over ours", f"{ratio:.2f}", "over 1")
    assert ratio > 1
