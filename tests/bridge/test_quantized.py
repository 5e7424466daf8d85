"""Codes are packed and read back exactly; each grid against its formula."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bridge import serial
from bridge.bitplanes import pack, unpack
from bridge.quantized import Quantized
from bridge.quantizers import MXINT, RoundToNearest, grouped
from mech.errors import BadInput

WIDTHS = range(2, 9)
ROUNDERS = [
    *(RoundToNearest(b, 5, symmetric) for b in WIDTHS for symmetric in (True, False)),
    RoundToNearest(3, None),
    RoundToNearest(4, 64, symmetric=False),
]
QUANTIZERS = [*ROUNDERS, *(MXINT(b, 5) for b in WIDTHS)]


@pytest.fixture
def weight(generator):
    scales = torch.logspace(-3, 2, 7)[:, None]
    weight = torch.randn(7, 13, generator=generator) * scales
    weight[2, :5] = 0
    return weight


@given(st.integers(1, 8), st.data())
def test_bit_planes_give_back_every_code(bits, data):
    codes = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40))
    codes = torch.tensor(codes, dtype=torch.uint8)
    planes = pack(codes, bits)
    assert planes.numel() == bits * -(-len(codes) // 8)
    assert torch.equal(unpack(planes, tuple(codes.shape)), codes)


def test_a_code_that_does_not_fit_is_refused():
    with pytest.raises(BadInput, match="code 4 does not fit in 2 bits"):
        pack(torch.tensor([0, 4], dtype=torch.uint8), 2)


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=str)
def test_the_round_trip_is_exact_in_every_bit(quantizer, weight):
    stored = quantizer(weight)
    values = grouped(weight.double(), quantizer.group)
    grid = quantizer.grid(values, weight.dtype)
    codes = grid.nearest(values)
    assert torch.equal(stored.codes(), codes.flatten(1)[:, :13].to(torch.uint8))
    # Its values are float32 products, rounded once; the codes of these are the codes again.
    exact = grid.value(codes).flatten(1)[:, :13]
    assert torch.equal(stored.dense(), exact.float())
    assert torch.equal(grid.nearest(grouped(stored.dense().double(), quantizer.group)), codes)
    again = serial.rebuild(serial.describe(stored), serial.tensors(stored))
    assert isinstance(again, Quantized)
    assert torch.equal(again.dense(), stored.dense())
    assert again.bits() == stored.bits()


@pytest.mark.parametrize("quantizer", ROUNDERS, ids=str)
def test_rounding_is_to_the_nearest_value_in_reach(quantizer, weight):
    values = grouped(weight.double(), quantizer.group)
    grid = quantizer.grid(values, torch.float64)
    levels = grid.scale * (torch.arange(2.0**quantizer.bits).view(-1, 1, 1, 1) - grid.zero)
    nearest = (levels - values).abs().amin(0)
    found = (grid.value(grid.nearest(values)) - values).abs()
    torch.testing.assert_close(found, nearest, rtol=1e-12, atol=0)
    assert bool((found <= 0.5 * grid.scale * (1 + 1e-9)).all())


def test_round_to_nearest_by_hand():
    weight = torch.tensor([[1.5, -0.5, 0.4, 0.0, -3.0]])
    symmetric = RoundToNearest(2, 3)(weight)
    # max 1.5: s = 1, values -2, -1, 0, 1; the last group is shorter: max 3, s = 2.
    assert symmetric.scales.tolist() == [[1, 2]]
    assert symmetric.dense().tolist() == [[1, 0, 0, 0, -4]]
    shifted = RoundToNearest(2, 3, symmetric=False)(weight)
    zeros = shifted.zeros()
    # 2/3 from -0.5 to 1.5: z = ⌊0.75⌉ = 1; then 1 from -3 to 0: z = 3.
    assert zeros is not None
    assert zeros.tolist() == [[1, 3]]
    torch.testing.assert_close(shifted.dense(), torch.tensor([[4 / 3, -2 / 3, 2 / 3, 0, -3]]))


def test_zero_is_among_the_values_of_a_group_of_one_sign():
    weight = torch.tensor([[3.0, 2.0, 2.9], [-3.0, -2.0, -2.9]])
    shifted = RoundToNearest(2, 3, symmetric=False)(weight)
    assert shifted.dense().tolist() == [[3, 2, 3], [-3, -2, -3]]


def test_mxint_by_hand():
    weight = torch.tensor([[1.5, -0.3, 0.26, 5.0, -7.9]])
    stored = MXINT(4, 3)(weight)
    # 2^0 is the power of two below 1.5, a step is 2^-2; 2^2 below 7.9, a step is 1, 8 is cut to 7.
    assert stored.scales.tolist() == [[-2, 0]]
    assert stored.dense().tolist() == [[1.5, -0.25, 0.25, 5, -7]]


@pytest.mark.parametrize("bits", WIDTHS)
def test_mxint_of_its_own_result_changes_nothing(bits, weight):
    once = MXINT(bits, 5)(weight)
    assert torch.equal(MXINT(bits, 5)(once.dense()).dense(), once.dense())


def test_bits_are_those_that_are_stored():
    weight = torch.ones(8, 64)
    assert RoundToNearest(3, 32)(weight).bits() == 8 * 64 * 3 + 8 * 2 * 32
    assert RoundToNearest(3, 32, symmetric=False)(weight).bits() == 8 * 64 * 3 + 8 * 2 * (32 + 3)
    assert RoundToNearest(3, 32)(weight.bfloat16()).bits() == 8 * 64 * 3 + 8 * 2 * 16
    assert MXINT(4)(weight).bits() == 8 * 64 * 4.25
    stored = MXINT(4)(weight)
    assert sum(t.numel() * t.element_size() for t in serial.tensors(stored).values()) * 8 == (
        stored.bits()
    )
    assert stored.bytes_moved() == 8 * 64 * 4.25 / 8 + 4 * (8 + 64)


@pytest.mark.parametrize("quantizer", [RoundToNearest(), MXINT()], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_formats_follow_the_weight_and_a_cast(quantizer, dtype, weight):
    stored = quantizer(weight.to(dtype))
    assert stored.dense().dtype == dtype
    x = torch.ones(2, 13, dtype=dtype)
    torch.testing.assert_close(stored(x), x @ stored.dense().mT)
    assert stored.float()(x.float()).dtype == torch.float32


def test_more_bits_are_nearer(weight):
    for kind in (RoundToNearest, MXINT):
        errors = [float((kind(b, 5)(weight).dense() - weight).norm()) for b in WIDTHS]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.03 * errors[0]


@pytest.mark.parametrize("kind", [RoundToNearest, MXINT])
def test_what_is_no_setting_is_refused(kind):
    for bits in (1, 9):
        with pytest.raises(BadInput, match=f"bits {bits}"):
            kind(bits)
    with pytest.raises(BadInput, match="group 0"):
        kind(4, 0)


def test_a_damaged_description_is_refused(weight):
    stored = RoundToNearest(3, 5)(weight)
    spec = serial.describe(stored) | {"bits": 4}
    with pytest.raises(BadInput, match="not those of 4 bits"):
        serial.rebuild(spec, serial.tensors(stored))
    with pytest.raises(BadInput, match="in groups of 0"):
        serial.rebuild(serial.describe(stored) | {"group": 0}, serial.tensors(stored))


@pytest.mark.parametrize(
    "quantizer", [MXINT(8, 32), *(RoundToNearest(8, 32, s) for s in (False, True))]
)
def test_a_group_whose_step_is_too_small_for_its_format_is_not_lost(quantizer):
    """Steps of numbers near 3e-6 in 8 bits are below what float16 has: its least one serves."""
    weight = (torch.linspace(-3e-6, 3e-6, 32)[None]).half()
    found = quantizer(weight).dense()
    assert (found - weight).abs().max() <= 2**-24
