"""GPTQ against the plain loop of its paper, and what its errors must be."""

import math
import time

import pytest
import torch

from bridge.methods.gptq import GPTQ
from bridge.methods.rounding import Rounding
from bridge.moments import factor
from bridge.quantizers import MXINT, RoundToNearest
from bridge.statistics import SecondMoment, second_moment
from mech.errors import BadInput

CASES = [
    (shape, quantizer, act_order)
    for shape in [(1, 1), (7, 13), (33, 65), (21, 150), (65, 33)]
    for quantizer in (
        RoundToNearest(3, 5),
        RoundToNearest(4, 32, symmetric=False),
        RoundToNearest(2, None),
        MXINT(4, 7),
    )
    for act_order in (False, True)
]


def seen_by(d_in, generator, tokens=400) -> SecondMoment:
    """Correlated channels of different sizes."""
    mixing = torch.randn(d_in, d_in, generator=generator) / math.sqrt(d_in)
    x = torch.randn(tokens, d_in, generator=generator) @ (mixing + torch.eye(d_in))
    return second_moment.update(second_moment.init(d_in), x * torch.logspace(-1, 1, d_in))


def half_even(value: float) -> float:
    return float(round(value))


def grid_of(columns, quantizer):
    """(s, z, lowest, highest) a row, straight from the formulas, s as float32."""
    bits, found = quantizer.bits, []
    for row in columns.tolist():
        largest = max(map(abs, row))
        if isinstance(quantizer, MXINT):
            exponent = math.floor(math.log2(largest)) if largest else 0
            middle = 2 ** (bits - 1)
            found.append((2.0 ** (exponent - bits + 2), middle, 1, 2 * middle - 1))
            continue
        low, high = min(*row, 0.0), max(*row, 0.0)
        if quantizer.symmetric:
            low, high = -largest, largest
        scale = float(torch.tensor((high - low) / (2**bits - 1)).float()) or 1.0
        zero = 2 ** (bits - 1) if quantizer.symmetric else half_even(-low / scale)
        found.append((scale, zero, 0, 2**bits - 1))
    return torch.tensor(found, dtype=torch.float64).mT


def plainly(weight, seen, quantizer, *, act_order=False, damping=0.01):
    """The column loop of the paper in float64, with a rank-one update of all that is ahead."""
    moment = seen.mean.clone()
    damped = moment + damping * moment.diagonal().mean() * torch.eye(len(moment)).to(moment)
    order = torch.arange(len(moment))
    if act_order:
        order = moment.diagonal().argsort(descending=True, stable=True)
    weight = weight.double()
    w, result = weight[:, order].clone(), torch.zeros_like(weight)
    # H⁻¹ = UᵀU
    upper = torch.linalg.cholesky(torch.linalg.inv(damped[order][:, order]), upper=True)
    group = quantizer.group or len(moment)
    grids = {}
    for j in range(len(moment)):
        own = int(order[j]) // group
        if own not in grids:
            source, first = (weight, own * group) if act_order or group >= len(moment) else (w, j)
            grids[own] = grid_of(source[:, first : first + group], quantizer)
        scale, zero, lowest, highest = grids[own]
        codes = (torch.round(w[:, j] / scale) + zero).maximum(lowest).minimum(highest)
        result[:, order[j]] = (codes - zero) * scale
        e = (w[:, j] - (codes - zero) * scale) / upper[j, j]
        w[:, j:] -= e[:, None] * upper[j, j:]
    return result


@pytest.mark.parametrize(("shape", "quantizer", "act_order"), CASES, ids=str)
def test_gptq_is_the_plain_loop(shape, quantizer, act_order, generator):
    weight = torch.randn(shape, generator=generator)
    seen = seen_by(shape[1], generator)
    found = GPTQ(quantizer, act_order=act_order, block=17)(weight, seen).dense()
    expected = plainly(weight, seen, quantizer, act_order=act_order)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_its_output_error_is_below_that_of_rounding(bits, generator):
    weight = torch.randn(48, 96, generator=generator)
    seen = seen_by(96, generator)

    def error(method, statistic):
        e = weight.double() - method(weight, statistic).dense().double()
        return float(((e @ seen.mean) * e).sum())

    quantizer = RoundToNearest(bits, 32)
    rounded = error(Rounding(quantizer), Rounding.statistic.init(96))
    # The large channels come last here: an order that takes them first has more left to mend with.
    assert error(GPTQ(quantizer), seen) < rounded
    assert error(GPTQ(quantizer, act_order=True), seen) < 0.8 * rounded


def test_of_uncorrelated_channels_it_is_rounding(generator):
    weight = torch.randn(9, 20, generator=generator)
    seen = SecondMoment(torch.diag(torch.arange(1.0, 21).double()), 1)
    quantizer = RoundToNearest(3, 6)
    rounded = quantizer(weight).dense()
    assert torch.equal(GPTQ(quantizer)(weight, seen).dense(), rounded)
    assert torch.equal(GPTQ(quantizer, act_order=True)(weight, seen).dense(), rounded)


def test_dead_channels_are_rounded_and_a_damping_that_was_raised_is_told(generator):
    weight = torch.randn(9, 20, generator=generator)
    quantizer = RoundToNearest(4, 5)
    x = torch.randn(3, 20, generator=generator)
    x[:, 15:] = 0
    seen = second_moment.update(second_moment.init(20), x)
    operator = GPTQ(quantizer, damping=0.0)(weight, seen)
    assert torch.equal(operator.dense()[:, 15:], quantizer(weight).dense()[:, 15:])
    assert operator.note == factor(seen.mean, 0.0).note
    assert "damping raised" in operator.note
    assert GPTQ(quantizer)(weight, seen_by(20, generator)).note == ""


def test_the_weight_takes_the_bits_that_rounding_takes(generator):
    weight, seen = torch.randn(8, 24, generator=generator), seen_by(24, generator)
    for quantizer in (RoundToNearest(3, 8, symmetric=False), MXINT(3, 8)):
        for act_order in (False, True):
            stored = GPTQ(quantizer, act_order=act_order)(weight, seen)
            assert stored.bits() == quantizer(weight).bits()


def test_no_block_is_refused():
    with pytest.raises(BadInput, match="block 0"):
        GPTQ(block=0)


def test_it_is_at_least_as_fast_as_the_plain_loop(generator, measured):
    weight, seen = torch.randn(768, 384, generator=generator), seen_by(384, generator)
    quantizer = RoundToNearest(4, None)

    def loop():
        w = weight.double().clone()
        damped = seen.mean + 0.01 * seen.mean.diagonal().mean() * torch.eye(384)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
        upper = torch.linalg.cholesky(inverse, upper=True)
        scale = w.abs().amax(1) / 7.5
        for j in range(384):
            q = (torch.round(w[:, j] / scale) + 8).clamp(0, 15).sub(8).mul(scale)
            e = (w[:, j] - q) / upper[j, j]
            w[:, j:] -= e[:, None] * upper[j, j:]

    def seconds(run):
        started = time.process_time()
        run()
        return time.process_time() - started

    ratios = []
    for _ in range(5):
        ratios.append(seconds(loop) / seconds(lambda: GPTQ(quantizer)(weight, seen)))
    middle = sorted(ratios)[2]
    measured("CPU time of the plain loop over GPTQ's, 768 x 384", f"{middle:.1f}", "at least 1")
    assert middle >= 1
