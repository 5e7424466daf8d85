"""Rows of codes say what the weight says, to half a step; codes that are given stay as they are."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctr_kernels.sparse_gemv.pack import int4_rows, int8_rows, rows_of

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 17), st.integers(0, 99))


@given(SIZES)
def test_int8_rows_are_within_half_a_step(sizes):
    d_out, d_in, _, seed = sizes
    weight = torch.randn(d_out, d_in, generator=torch.Generator().manual_seed(seed))
    rows = int8_rows(weight)
    step = weight.abs().amax(1) / 127
    off = (rows.matrix(torch.float64).mT - weight).abs()
    assert (off <= 0.5001 * step[:, None]).all()
    assert rows.row_bytes == d_out


@given(SIZES)
def test_int4_rows_are_within_half_a_step_of_their_group(sizes):
    d_out, d_in, group, seed = sizes
    weight = torch.randn(d_out, d_in, generator=torch.Generator().manual_seed(seed))
    rows = int4_rows(weight, group)
    matrix = rows.matrix(torch.float64).mT
    for first in range(0, d_in, group):
        part = weight[:, first : first + group]
        step = (part.amax(1).clamp_min(0) - part.amin(1).clamp_max(0)) / 15
        off = (matrix[:, first : first + group] - part).abs()
        # Half a step for the code and, at the ends of the range, half a one for the zero point.
        assert (off <= 1.0001 * step[:, None]).all()
        assert (off <= 0.5001 * step[:, None]).float().mean() >= 0.5
    assert rows.row_bytes == -(-d_out // 2)


@given(SIZES, st.sampled_from([torch.float32, torch.bfloat16, torch.float16]), st.booleans())
def test_given_codes_stay_as_they_are(sizes, dtype, shifted):
    d_out, d_in, group, seed = sizes
    generator = torch.Generator().manual_seed(seed)
    groups = -(-d_in // group)
    codes = torch.randint(0, 16, (d_out, d_in), generator=generator, dtype=torch.uint8)
    scales = torch.rand(d_out, groups, generator=generator).to(dtype)
    zeros = torch.randint(0, 16, (d_out, groups), generator=generator, dtype=torch.uint8)
    rows = rows_of(codes, scales, zeros if shifted else None, group)
    at = torch.arange(d_in) // group
    zero = zeros[:, at].double() if shifted else 8.0
    wanted = (codes.double() - zero) * scales.double()[:, at]
    assert torch.equal(rows.matrix(torch.float64).mT, wanted)


def test_a_weight_of_zeros_keeps_its_zeros():
    for rows in (int8_rows(torch.zeros(3, 5)), int4_rows(torch.zeros(3, 5), 2)):
        assert torch.equal(rows.matrix(), torch.zeros(5, 3))


def test_what_has_no_code_is_one_line():
    bad = torch.ones(2, 3)
    bad[1, 2] = float("nan")
    for pack in (int8_rows, int4_rows):
        with pytest.raises(ValueError, match="not finite"):
            pack(bad)
    with pytest.raises(ValueError, match="a code of 16"):
        rows_of(torch.full((2, 3), 16, dtype=torch.uint8), torch.ones(2, 1), None, 3)
    with pytest.raises(ValueError, match="float64"):
        scales = torch.full((2, 1), 1 / 3, dtype=torch.float64)
        rows_of(torch.ones(2, 3, dtype=torch.uint8), scales, None, 3)
