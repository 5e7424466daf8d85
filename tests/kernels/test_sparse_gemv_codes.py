"""Rows of codes on a CPU equal the definition, to float32's rounding of sums of panels."""

import ctypes
import mmap
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import from_dtype

from ctr_kernels.sparse_gemv.digits import CODES, STEP
from ctr_kernels.sparse_gemv.dots import NATIVE
from ctr_kernels.sparse_gemv.frame import FRAME
from ctr_kernels.sparse_gemv.pack import rows_of
from ctr_kernels.sparse_gemv.prepared import Prepared, prepare
from ctr_kernels.sparse_gemv.rows import Rows

KINDS = ("int8", "int4", "int4 without zeros")
EPS = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
# Each compiles for seconds: both codes, each input beside one of them, and beside both the one that
# has most digits.
PAIRS = [("int8", torch.bfloat16), ("int4", torch.float16), *((k, torch.float32) for k in KINDS)]
needs_dots = pytest.mark.skipif(not NATIVE, reason="needs AVX-512 VNNI")


def made(kind: str, d_out: int, d_in: int, group: int, seed: int) -> Rows:
    g = torch.Generator().manual_seed(seed)
    if kind == "int8":
        codes = torch.randint(-128, 128, (d_in, d_out), generator=g, dtype=torch.int8)
        return Rows(codes, d_out, torch.rand(1, d_out, generator=g))
    codes = torch.randint(0, 16, (d_out, d_in), generator=g, dtype=torch.uint8)
    groups = -(-d_in // group)
    zeros = torch.randint(0, 16, (d_out, groups), generator=g, dtype=torch.uint8)
    scales = torch.rand(d_out, groups, generator=g)
    return rows_of(codes, scales, zeros if kind == "int4" else None, group)


def inputs(batch: int, d_in: int, seed: int, dtype=torch.float32) -> torch.Tensor:
    """Magnitudes over ten binades or so, zeros among them."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, d_in, generator=g) ** 3
    x[torch.rand(batch, d_in, generator=g) < 0.1] = 0
    return x.to(dtype)


def size(call: Prepared, x: torch.Tensor) -> torch.Tensor:
    """Σ |W_oj| |x_bj| and what the factors and the bias may add: what roundings are relative to.

    Of codes with zeros |W| is s (c + z), since c and z are summed apart.
    """
    w = call.weights
    far = w.rows.matrix(torch.float64).abs()
    if w.rows.zeros is not None:
        codes = Rows(w.rows.values, w.rows.d_out, w.rows.scales, -w.rows.zeros, w.rows.group)
        far = codes.matrix(torch.float64)
    y = x.double().abs() @ far
    if w.down is not None and w.up is not None:
        y = y + (x.double().abs() @ w.down.double().abs()) @ w.up.double().abs()
    return y if w.bias is None else y + w.bias.double().abs()


def exactly(call: Prepared, x: torch.Tensor) -> torch.Tensor:
    return call.definition(x.double())


@pytest.mark.parametrize(("kind", "dtype"), PAIRS)
@settings(max_examples=settings().max_examples * 2 // 5)
@given(
    st.tuples(st.integers(1, 150), st.integers(1, 300)),
    st.sampled_from([1, 7, 32, 128, 200]),
    st.integers(1, 8),
    st.sampled_from([-1.0, 0.0, 0.3, 2.0, float("inf")]),
    st.sampled_from([0, 0, 1, 9]),
    st.integers(0, 99),
)
def test_is_the_definition(kind, dtype, shape, group, batch, threshold, rank, seed):
    d_out, d_in = shape
    rows, x = made(kind, d_out, d_in, group, seed), inputs(batch, d_in, seed, dtype)
    t = torch.full((d_in,), threshold)
    t[::3] = x[0, ::3].float().abs()  # ties are left out
    g = torch.Generator().manual_seed(seed)
    down = torch.randn(d_in, rank, generator=g) if rank else None
    up = torch.randn(rank, d_out, generator=g) if rank else None
    bias = torch.randn(d_out, generator=g) if seed % 2 else None
    call = prepare(rows, t, down, up, bias, threads=1, x_dtype=dtype)
    assert call.backend == "cpu", call.reason
    got = call(x).double()
    # Roundings: six a panel, of which a block of channels has four at most; the factors' sums.
    panels = 4 * sum(-(-min(group, d_in) // STEP) for _ in range(0, d_in, min(group, d_in)))
    sums = 2.0**-24 * (6 * panels + 12 + d_in * (rank > 0)) * size(call, x)
    # 2^-24: half a step of float16's subnormal numbers is above it, of the others below.
    wanted = exactly(call, x)
    assert ((got - wanted).abs() <= sums + EPS[dtype] * (wanted.abs() + sums) + 2.0**-24).all()


@pytest.mark.parametrize("shape", [(1, 5), (63, 64), (64, 129), (130, 33), (1001, 400)])
def test_threads_share_the_outputs_and_change_no_bit(shape, generator):
    d_out, d_in = shape
    rows, x = made("int4", d_out, d_in, 128, 1), inputs(3, d_in, 2)
    down, up = torch.randn(d_in, 5, generator=generator), torch.randn(5, d_out, generator=generator)
    t = torch.full((d_in,), 0.2)
    one = prepare(rows, t, down, up, threads=1)
    two = prepare(rows, t, down, up, threads=2)
    first = one(x)
    for _ in range(5):
        assert torch.equal(two(x), first)
        assert torch.equal(one(x), first)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=settings().max_examples // 5)
@given(st.integers(2, 8), st.integers(0, 50))
def test_rows_of_the_batch_do_not_see_each_other(kind, batch, seed):
    rows, x = made(kind, 70, 300, 128, seed), inputs(batch, 300, seed)
    call = prepare(rows, torch.full((300,), 0.3), threads=1)
    together = call(x)
    for b in range(batch):
        assert torch.equal(together[b], call(x[b]))


@needs_dots
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_of_a_panel_are_exact(dtype, generator):
    """Terms that cancel leave nothing: in float32 their roundings would stay."""
    d_in = STEP
    values = torch.randint(-127, 128, (d_in // 2, 64), generator=generator, dtype=torch.int8)
    rows = Rows(torch.cat([values, -values.flip(0)]), 64, torch.ones(1, 64))
    half = 1 + torch.rand(d_in // 2, generator=generator)
    x = torch.cat([half, half.flip(0)]).to(dtype)
    got = prepare(rows, torch.zeros(d_in), threads=1, x_dtype=dtype)(x)
    assert torch.equal(got, torch.zeros(64, dtype=dtype))


def test_a_frame_of_codes_is_not_taken_for_one_of_floats():
    """Code compiled for floats first would be run on it, with a warning."""
    codes, floats = cast(Any, from_dtype(CODES)), cast(Any, from_dtype(FRAME))
    assert codes.can_convert_to(None, floats) is floats.can_convert_to(None, codes) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e31, 1e-38, 1e-42])
def test_inputs_without_digits_are_the_definition_too(kind, bad):
    rows, x = made(kind, 70, 300, 128, 0), inputs(2, 300, 0)
    x[0, 5], x[0, 250] = bad, 1.0
    t = torch.zeros(300)
    call = prepare(rows, t, threads=1)
    got, wanted = call(x).double(), exactly(call, x)
    torch.testing.assert_close(got[0], wanted[0], rtol=1e-4, atol=1e-3, equal_nan=True)
    assert torch.equal(got[1].float(), call(x[1]))


@pytest.fixture
def walled():
    """A copy in front of memory that must not be touched, and what bars the copy too."""
    page, areas = mmap.PAGESIZE, []
    libc = ctypes.CDLL(None, use_errno=True)

    def protect(area: mmap.mmap, first: int, rights: int) -> None:
        base = ctypes.addressof(ctypes.c_char.from_buffer(area)) + first
        size = ctypes.c_size_t(len(area) - first)
        assert libc.mprotect(ctypes.c_void_p(base), size, rights) == 0

    def placed(tensor: torch.Tensor) -> torch.Tensor:
        pages = -(-tensor.nbytes // page) * page
        area = mmap.mmap(-1, pages + page)
        areas.append(area)
        at = pages - tensor.nbytes
        flat = torch.frombuffer(area, dtype=tensor.dtype, count=tensor.numel(), offset=at)
        flat.copy_(tensor.flatten())
        protect(area, pages, 0)
        return flat.view(tensor.shape)

    yield placed, lambda: protect(areas[-1], 0, 0)
    for area in areas:
        protect(area, 0, mmap.PROT_READ | mmap.PROT_WRITE)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_behind_the_last_row_is_read(kind, walled):
    source, x = made(kind, 77, 13, 5, 3), inputs(1, 13, 1)
    t = torch.full((13,), -1.0)
    at = Rows(walled[0](source.values), 77, source.scales, source.zeros, source.group)
    assert torch.equal(prepare(at, t, threads=1)(x), prepare(source, t, threads=1)(x))


def test_rows_of_channels_left_out_are_not_read(walled):
    source, x = made("int8", 64, 300, 128, 0), inputs(1, 300, 0)
    placed, bar = walled
    at = Rows(placed(source.values), 64, source.scales)
    call = prepare(at, torch.full((300,), float("inf")), threads=1)
    bar()
    assert torch.equal(call(x), torch.zeros(1, 64))
