"""The fused pass equals its definition bit by bit; the definition equals plain NumPy."""

import numpy as np
import pytest
import torch

from ctr_kernels.op import Unsupported
from ctr_kernels.over_relax import over_relax

SHAPES = [(1, 2), (3, 63), (5, 100), (2, 128), (7, 129), (2, 1537)]


def matrices(shape, low_dtype, generator):
    target, low, before = (torch.randn(shape, generator=generator) for _ in range(3))
    return target, low.to(low_dtype), before.to(low_dtype)


@pytest.mark.parametrize("low_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_the_definition_at_odd_sizes(shape, low_dtype, generator):
    target, low, before = matrices(shape, low_dtype, generator)
    for keep in {1, max(1, shape[1] // 3), shape[1] - 1}:
        spare = before.clone(), before.clone()
        got = over_relax.on("cpu")(target, low, spare[0], keep, 0.9, 1.3)
        expected = over_relax.on("reference")(target, low, spare[1], keep, 0.9, 1.3)
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
        assert got is spare[0]
        assert expected is spare[1]


@pytest.mark.parametrize("low_dtype", [torch.float32, torch.bfloat16])
def test_ties_are_kept_from_the_left(low_dtype):
    """All residuals are ±1: the first two of every row are kept, the rest is relaxed twice over."""
    target = torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0], [0.0] * 5])
    zero = torch.zeros(2, 5, dtype=low_dtype)
    for backend in ("reference", "cpu"):
        found = over_relax.on(backend)(target, zero, zero.clone(), 2, 0.5, 2.0)
        assert found.tolist() == [[0, 0, 2, -2, 2], [0] * 5]


def test_the_definition_is_the_formula(generator):
    target, low, before = (x.double() for x in matrices((6, 17), torch.float32, generator))
    a, now, was = target.numpy(), low.numpy(), before.clone().numpy()
    ahead = now + 0.7 * (now - was)
    residual = a - ahead
    cut = np.sort(np.abs(residual), axis=1)[:, [-5]]
    expected = ahead + 1.2 * np.where(np.abs(residual) >= cut, 0, residual)
    found = over_relax(target, low, before, 5, 0.7, 1.2)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-14)


def test_the_plain_step_is_what_the_kept_entries_leave(generator):
    target, low, before = matrices((4, 30), torch.float32, generator)
    found = over_relax(target, low, before, 7, 0.0, 1.0)
    kept = (found == low).sum(1)
    assert kept.tolist() == [7] * 4
    torch.testing.assert_close(found[found != low], target[found != low])


def test_what_it_reads_is_left_alone_and_views_are_read(generator):
    wide = [torch.randn(9, 80, generator=generator) for _ in range(2)]
    kept = [x.clone() for x in wide]
    target, low = (x[1:8, ::2] for x in wide)
    last = torch.randn(20, 40, generator=generator)
    copy = last.clone()
    got = over_relax.on("cpu")(target, low, last[3:10], 5, 0.4, 1.1)
    expected = over_relax.on("reference")(target, low, copy[3:10], 5, 0.4, 1.1)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    torch.testing.assert_close(last, copy, rtol=0, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(wide, kept, strict=True))


def test_the_kernel_declines_what_it_cannot_do():
    x = torch.ones(2, 3)
    cases = ((x.double(), x, 1), (x, x.half(), 1), (x, x, 3), (x, x, 0))
    for target, low, keep in cases:
        with pytest.raises(Unsupported):
            over_relax.on("cpu")(target, low, low, keep, 0.5, 1.0)
    with pytest.raises(Unsupported, match="one piece"):
        over_relax.on("cpu")(x, x, torch.ones(3, 2).mT, 1, 0.5, 1.0)
    assert over_relax.run(x, x, x.clone(), 3, 0.5, 1.0).backend == "reference"
    with pytest.raises(ValueError, match="keep=4"):
        over_relax(x, x, x, 4, 0.5, 1.0)
