"""Every implementation of sparse_gemv and rsparse_gemv answers to float64, whatever the shape."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctr_kernels.op import Unsupported
from ctr_kernels.sparse_gemv import Rows, prepare, rsparse_gemv, sparse_gemv
from ctr_kernels.sparse_gemv.reference import active

HALVES = {torch.float32: 0.0, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
U = 2.0**-24  # the unit roundoff of float32


class Case(NamedTuple):
    """Arguments of a call."""

    x: torch.Tensor
    rows: Rows
    threshold: torch.Tensor
    down: torch.Tensor
    up: torch.Tensor
    bias: torch.Tensor
    threads: int


def made(d_in, d_out, rank, batch, dtype, share, threads, seed=0) -> Case:
    """`share` of the channels is kept: all, none, or those above a quantile, with ties at it."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g).to(dtype)

    x = normal(batch, d_in)
    t = torch.full((d_in,), -1.0 if share == 1 else float("inf"))
    if 0 < share < 1:
        t = x.float().abs().quantile(1 - share) * (0.5 + torch.rand(d_in, generator=g))
        t[::3] = x[0, ::3].float().abs()  # ties: these are left out
    factors = normal(d_in, rank), normal(rank, d_out)
    return Case(x, Rows(normal(d_in, d_out), d_out), t, *factors, normal(d_out), threads)


def expected(c: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """y in float64, and how far float32 sums in any order may be from it, before y is rounded."""
    m = active(c.x, c.threshold)
    x, w = c.x.double(), c.rows.values.double()
    kept, rest = torch.where(m, x, 0), torch.where(m, 0, x)
    down, up = c.down.double(), c.up.double()
    y = kept @ w + rest @ down @ up + c.bias.double()
    size = kept.abs() @ w.abs() + rest.abs() @ down.abs() @ up.abs() + c.bias.double().abs()
    steps = c.rows.d_in + len(up) + 4
    slack = 1.1 * steps * U * size + HALVES[c.x.dtype] * (y.abs() + steps * U * size) + 1e-30
    return y, slack + (2.0**-24 if c.x.dtype == torch.float16 else 0)


def call(c: Case) -> torch.Tensor:
    prepared = prepare(c.rows, c.threshold, c.down, c.up, c.bias, threads=c.threads)
    assert prepared.backend == "cpu", prepared.reason
    return prepared(c.x)


CASES = st.builds(
    made,
    d_in=st.integers(1, 150),
    d_out=st.integers(1, 150),
    rank=st.integers(0, 40),
    batch=st.integers(1, 8),
    dtype=st.sampled_from(list(HALVES)),
    share=st.sampled_from([0, 0.1, 0.5, 0.9, 1]),
    threads=st.just(1),
    seed=st.integers(0, 99),
)


@given(CASES)
def test_a_prepared_call_is_the_definition(c):
    y, slack = expected(c)
    got = call(c)
    assert got.dtype == c.x.dtype
    assert ((got.double() - y).abs() <= slack).all()


@given(CASES.map(lambda c: c._replace(threads=2)).filter(lambda c: c.x.dtype == torch.float32))
def test_two_threads_are_the_definition_and_repeat_their_bits(c):
    y, slack = expected(c)
    got = call(c)
    assert ((got.double() - y).abs() <= slack).all()
    assert torch.equal(call(c), got)
    assert torch.get_num_threads() == 1  # torch's own are what they were


@given(CASES)
def test_twice_the_same_bits_and_a_row_alone_has_those_of_the_batch(c):
    got = call(c)
    assert torch.equal(call(c), got)
    for b in range(len(c.x)):
        assert torch.equal(call(c._replace(x=c.x[b : b + 1])), got[b : b + 1])


@pytest.mark.parametrize(
    ("by_rows", "d_out", "threads"), [(True, 300, 2), (False, 1100, 2), (False, 512, 9)]
)
def test_threads_share_channels_of_short_rows_and_outputs_of_long_ones(by_rows, d_out, threads):
    c = made(37, d_out, 5, 3, torch.float32, 0.5, threads)  # of nine one has no outputs left
    y, slack = expected(c)
    assert ((call(c).double() - y).abs() <= slack).all()
    alone = call(c._replace(threads=1))
    # Sums that one thread takes from the first channel to the last have one order.
    assert by_rows or torch.equal(call(c), alone)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_seen_in_its_own_row_of_the_batch_only(dtype, odd):
    c = made(40, 33, 0, 3, dtype, 0.5, 1)
    clean = call(c)
    c.x[1, 7] = odd
    c.threshold[7] = 0.5
    got = call(c)
    assert torch.equal(got[[0, 2]], call(c._replace(x=c.x[[0, 2]])))
    assert not got[1].isfinite().any()
    assert clean.isfinite().all()
    c.threshold[7] = torch.inf  # never kept, unless it is no number
    assert call(c)[1].isfinite().any() != (odd != odd)


@pytest.mark.parametrize("dtype", HALVES)
def test_ops_take_the_kernel_and_decline_with_a_reason(dtype):
    c = made(50, 61, 7, 2, dtype, 0.5, 1)
    ran = rsparse_gemv.run(c.x, c.rows, c.threshold, c.down, c.up)
    assert ran.backend == "cpu"
    y, slack = expected(c._replace(bias=torch.zeros(61)))
    assert ((ran.value.double() - y).abs() <= slack).all()
    plain = sparse_gemv.run(c.x, c.rows, c.threshold)
    assert plain.backend == "cpu"
    none = c._replace(bias=torch.zeros(61), down=c.down[:, :0], up=c.up[:0])
    assert ((plain.value.double() - expected(none)[0]).abs() <= expected(none)[1]).all()
    many = c.x.repeat(5, 1)
    assert sparse_gemv.run(many, c.rows, c.threshold).backend == "reference"
    with pytest.raises(Unsupported, match="1 to 8 rows"):
        sparse_gemv.on("cpu")(many, c.rows, c.threshold)
    with pytest.raises(Unsupported, match="not torch"):
        sparse_gemv.on("cpu")(c.x.double(), c.rows, c.threshold)


def test_of_more_rows_or_another_dtype_or_in_pieces_it_is_the_definition():
    c = made(50, 61, 7, 2, torch.float32, 0.5, 1)
    p = prepare(c.rows, c.threshold, c.down, c.up, c.bias, threads=1)
    y, slack = expected(c)
    for x in (c.x.double(), c.x.T.contiguous().T, c.x.repeat(9, 1).view(9, 2, 50)):
        got = p(x)
        assert got.dtype == x.dtype
        assert got.shape == (*x.shape[:-1], 61)
        assert ((got.double() - y).abs() <= slack).all()
    assert p(c.x[None, :, None]).shape == (1, 2, 1, 61)
    assert p(c.x[:0]).shape == (0, 61)


def test_inputs_and_rows_of_different_formats():
    c = made(50, 61, 7, 2, torch.bfloat16, 0.5, 1)
    x = c.x.float() + 1e-3
    t = c.threshold + 1e-3
    p = prepare(c.rows, t, c.down.float(), c.up.float(), c.bias, x_dtype=torch.float32)
    y, slack = expected(c._replace(x=x, threshold=t))
    assert p.backend == "cpu"
    assert ((p(x).double() - y).abs() <= slack).all()


def test_a_kernel_reads_the_weights_as_they_are_when_it_is_called():
    c = made(50, 61, 0, 1, torch.float32, 0.5, 1)
    p = prepare(c.rows, c.threshold, threads=1)
    before = p(c.x)
    c.rows.values.mul_(2)
    assert torch.equal(p(c.x), 2 * before)


def test_shapes_that_do_not_go_together_are_refused():
    c = made(50, 61, 7, 1, torch.float32, 0.5, 1)
    with pytest.raises(ValueError, match="49"):
        prepare(c.rows, torch.zeros(49))
    with pytest.raises(ValueError, match="7, 60"):
        prepare(c.rows, c.threshold, c.down, torch.zeros(7, 60))
    with pytest.raises(ValueError, match="go together"):
        prepare(c.rows, c.threshold, None, c.up)
    with pytest.raises(ValueError, match="60"):
        prepare(c.rows, c.threshold, bias=torch.zeros(60))
