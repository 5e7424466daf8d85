"""A factor is of the moment that it says it is of, whatever the moment."""

import pytest
import torch

from bridge.moments import factor, shrink
from mech.errors import BadInput


def moment_of(tokens: int, d_in: int, generator, dtype=torch.float64):
    x = torch.randn(tokens, d_in, generator=generator, dtype=dtype) * torch.logspace(-2, 2, d_in)
    return (x.mT @ x / tokens).to(dtype)


def damped(moment, found):
    """What the docstring says R' is, written out."""
    live = [j for j in range(len(moment)) if moment[j, j] > 0]
    mean = sum(float(moment[j, j]) for j in live) / len(live)
    expected = moment.double().clone()
    for j in range(len(moment)):
        expected[j, j] = moment[j, j] + found.damping * mean if j in live else mean
    return expected


@pytest.mark.parametrize("size", [1, 7, 33])
@pytest.mark.parametrize("damping", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_the_factor_and_the_factor_of_the_inverse(size, damping, scale, generator):
    moment = moment_of(200, size, generator) * scale
    found = factor(moment, damping)
    assert (found.damping, found.note) == (damping, "")
    whole = damped(moment, found)
    for triangle in (found.upper, found.inverse_upper):
        assert torch.equal(triangle, triangle.triu())
    torch.testing.assert_close(found.upper @ found.upper.mT / scale, whole / scale)
    torch.testing.assert_close(found.moment / scale, whole / scale)
    inverse = found.inverse_upper.mT @ (found.inverse_upper @ whole)
    torch.testing.assert_close(inverse, torch.eye(size).double(), atol=1e-6, rtol=0)


def test_the_damping_is_the_one_asked_for_in_float64():
    found = factor(torch.full((1, 1), 3.0, dtype=torch.float64), 0.01)
    assert abs(float(found.moment) - 3.03) < 1e-14


def test_fewer_tokens_than_channels_factor_with_the_damping_asked_for(generator):
    found = factor(moment_of(5, 33, generator))
    assert (found.damping, found.note) == (0.01, "")


def test_dead_channels_are_decoupled(generator):
    moment = moment_of(200, 13, generator)
    alive = torch.arange(13) % 3 != 0
    moment = moment * alive * alive[:, None]
    found = factor(moment, 0.01)
    assert torch.equal(found.dead, ~alive)
    torch.testing.assert_close(found.upper @ found.upper.mT, damped(moment, found))
    part = factor(moment[alive][:, alive], 0.01)
    torch.testing.assert_close(found.inverse_upper[alive][:, alive], part.inverse_upper)


def test_no_live_channel_is_noted():
    found = factor(torch.zeros(5, 5))
    assert torch.equal(found.upper, torch.eye(5).double())
    assert "no live channel" in found.note


def test_damping_is_raised_aloud_until_it_factors(generator):
    x = torch.randn(40, 9, generator=generator, dtype=torch.float64)
    moment = x.mT @ x
    # Rounding of half precision can push an eigenvalue below zero: here to -0.02 of the mean.
    lowest, mean = torch.linalg.eigvalsh(moment)[0], moment.diagonal().mean()
    moment.diagonal().sub_(1.02 * (lowest + 0.02 * mean))
    found = factor(moment, 0.001)
    assert found.damping == pytest.approx(0.1)
    assert found.note.startswith("damping raised from 0.001 to 0.1")
    torch.testing.assert_close(found.upper @ found.upper.mT, damped(moment, found))


def test_without_damping_a_singular_moment_takes_the_least(generator):
    x = torch.randn(3, 9, generator=generator, dtype=torch.float64)
    found = factor(x.mT @ x, 0.0)
    assert 0 < found.damping < 1e-6
    assert "raised from 0 to" in found.note


def test_shrinking_keeps_the_diagonal(generator):
    moment = moment_of(5, 9, generator)
    before = moment.clone()
    half = shrink(moment, 0.5)
    assert torch.equal(moment, before)
    torch.testing.assert_close(half.diagonal(), moment.diagonal(), rtol=0, atol=0)
    off = ~torch.eye(9, dtype=torch.bool)
    torch.testing.assert_close(half[off], moment[off] / 2)
    assert torch.equal(shrink(moment, 1.0), moment.diagonal().diag())
    assert factor(half, 0.0).note == ""


@pytest.mark.parametrize(
    ("moment", "damping", "match"),
    [
        (torch.full((3, 3), torch.nan), 0.01, "not finite"),
        (torch.eye(3), -1.0, "damping -1"),
        (torch.eye(3) - 2 * torch.ones(3, 3).triu(1) * 1e6, 0.01, "semidefinite"),
    ],
)
def test_what_is_no_moment_is_refused(moment, damping, match):
    with pytest.raises(BadInput, match=match):
        factor(moment, damping)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_outside_the_unit_interval_is_refused(share):
    with pytest.raises(BadInput, match="shrinkage"):
        shrink(torch.eye(3), share)
