"""The Triton kernel, in the interpreter: equal to the definition, inside its tensors, and clean.

Small tiles, so that small matrices have many programs: blocks of the batch, of outputs, of
channels and of the rank. The shipped tiles are compiled in `test_compiles.py`.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr_kernels.op import Unsupported
from ctr_kernels.sparse_gemv import Rows, prepare, rsparse_gemv, sparse_gemv

pytest.importorskip("triton")
from ctr_kernels.sparse_gemv import triton as kernel
from ctr_kernels.sparse_gemv import triton_plan

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
FORMATS = (*FLOATS, "int8", "int4", "int4 zeros")


@pytest.fixture(autouse=True, scope="module")
def small_tiles():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton_plan, "processors", lambda device: (1, 4))
        patch.setattr(triton_plan, "WARPS", 8)
        patch.setattr(triton_plan, "AHEAD", 2)
        patch.setattr(triton_plan, "_shared", {})
        yield


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rows_of(kind, d_in: int, d_out: int, group: int = 5) -> Rows:
    if isinstance(kind, torch.dtype):
        return Rows(drawn(1, d_in, d_out).to(kind), d_out)
    generator = torch.Generator().manual_seed(1)
    if kind == "int8":
        values = torch.randint(-127, 128, (d_in, d_out), generator=generator, dtype=torch.int8)
        return Rows(values, d_out, torch.rand(1, d_out, generator=generator) / 64)
    groups = -(-d_in // group)
    shape = (d_in, -(-d_out // 2))
    codes = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    zeros = torch.randint(0, 16, (groups, d_out), generator=generator).float()
    scales = torch.rand(groups, d_out, generator=generator) / 4
    return Rows(codes, d_out, scales, zeros if kind == "int4 zeros" else None, group)


def within_rounding(y, x, rows, threshold, down=None, up=None):
    """|y - exact| <= u |exact| + n eps Σ |terms|: what sums of n terms in float32 may lose.

    Four-bit codes and int8 take the scale last: their terms round twice more. The interpreter
    cuts bfloat16 off where a GPU rounds it to the nearest.
    """
    wide = x.double()
    if down is None or up is None:
        exact = sparse_gemv.reference(wide, rows, threshold)
        size = wide.abs() @ rows.matrix(torch.float64).abs()
        terms = rows.d_in
    else:
        exact = rsparse_gemv.reference(wide, rows, threshold, down, up)
        low = down.double().abs() @ up.double().abs()
        size = wide.abs() @ (rows.matrix(torch.float64).abs() + low)
        terms = rows.d_in + len(up)
    unit = torch.finfo(y.dtype).eps / (1 if y.dtype == torch.bfloat16 else 2)
    bound = (terms + 4) * 2.0**-24 * size + unit * exact.abs() + torch.finfo(y.dtype).tiny
    assert y.dtype == x.dtype
    assert ((y.double() - exact).abs() <= bound).all()


def thresholds(x, level: float) -> torch.Tensor:
    """Not the same everywhere; of two channels one is decided by a tie, which is left out."""
    d_in = x.shape[1]
    threshold = torch.full((d_in,), level) * (0.5 + torch.arange(d_in) % 3)
    if d_in > 2:
        threshold[1] = x[0, 1].float().abs()
    return threshold


def check(kind, x, d_out: int, rank: int, level: float, deterministic: bool) -> None:
    rows, threshold = rows_of(kind, x.shape[1], d_out), thresholds(x, level)
    if not rank:
        y = kernel.sparse_gemv(x, rows, threshold, deterministic=deterministic)
        return within_rounding(y, x, rows, threshold)
    down, up = (drawn(3, x.shape[1], rank).to(x.dtype), drawn(4, rank, d_out).to(x.dtype))
    y = kernel.rsparse_gemv(x, rows, threshold, down, up, deterministic=deterministic)
    return within_rounding(y, x, rows, threshold, down, up)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize(("kind", "x_dtype"), list(zip(FORMATS, FLOATS * 2, strict=True)))
def test_equals_the_definition_of_every_format(kind, x_dtype, deterministic):
    check(kind, drawn(2, 3, 37).to(x_dtype), 45, 7, 0.7, deterministic)


@settings(max_examples=12)
@given(
    kind=st.sampled_from(FORMATS),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9), st.integers(1, 6)),
    x_dtype=st.sampled_from(FLOATS),
    level=st.sampled_from([-1.0, 0.0, 0.5, 1.5, torch.inf]),
    deterministic=st.booleans(),
)
def test_equals_the_definition_at_drawn_sizes(kind, shape, x_dtype, level, deterministic):
    d_in, d_out, rank, batch = shape
    check(kind, drawn(2, batch, d_in).to(x_dtype), d_out, rank, level, deterministic)


@pytest.mark.parametrize("kind", [torch.float16, "int8", "int4 zeros"])
def test_the_shipped_tiles_compute_the_same(kind, monkeypatch):
    monkeypatch.setattr(triton_plan, "processors", lambda device: (1, 32))
    monkeypatch.setattr(triton_plan, "WARPS", 4)
    monkeypatch.setattr(triton_plan, "AHEAD", 8)
    check(kind, drawn(2, 1, 67), 301, 18, 0.7, True)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the interpreter
@pytest.mark.parametrize("kind", [torch.bfloat16, "int8", "int4 zeros"])
def test_nan_and_infinity_are_seen_in_their_row_alone(kind):
    """A NaN is kept whatever t is; t = inf keeps nothing else, not even an infinite x."""
    x = drawn(2, 4, 20)
    x[1, 3], x[2, 4], x[3, 5] = torch.nan, torch.inf, -torch.inf
    down, up = drawn(3, 20, 3), drawn(4, 3, 33)
    rows, threshold = rows_of(kind, 20, 33), thresholds(x, 0.7)
    threshold[5] = torch.inf
    y = kernel.rsparse_gemv(x, rows, threshold, down, up)
    expected = rsparse_gemv.reference(x, rows, threshold, down, up)
    for what in (torch.isnan, torch.isposinf, torch.isneginf):
        assert torch.equal(what(y), what(expected))
    assert y[0].isfinite().all()
    assert y[1].isnan().all()
    clean = kernel.rsparse_gemv(torch.where(x.isfinite(), x, 9.0), rows, threshold, down, up)
    assert torch.equal(y[0], clean[0])


def test_two_runs_agree_bit_by_bit_and_leave_zeros():
    """The counters, and in the atomic mode the sums, are as the next launch expects them."""
    shared = triton_plan.Workspace(torch.device("cpu"))
    for deterministic in (True, False):
        for d_in, d_out, rank in ((37, 45, 7), (20, 90, 0)):
            rows, x = rows_of(torch.float32, d_in, d_out), drawn(2, 3, d_in)
            factors = (drawn(3, d_in, rank), drawn(4, rank, d_out)) if rank else ()
            bound = kernel.Bound(
                rows, thresholds(x, 0.7), *factors, deterministic=deterministic, workspace=shared
            )
            first, again = bound(x), bound(x)
            assert torch.equal(first, again)
            assert shared.state.any().item() is False
            assert not any(t.any() for name, t in shared._floats.items() if "True" in name)


def test_a_bound_call_pads_factors_and_adds_the_bias():
    rows, x = rows_of(torch.float16, 37, 45), drawn(2, 2, 37).half()
    down, up, bias = drawn(3, 37, 5).half(), drawn(4, 5, 45).half(), drawn(5, 45)
    threshold = thresholds(x, 0.7)
    bound = kernel.Bound(rows, threshold, down, up, bias)
    assert bound.down is not None
    assert bound.up is not None
    assert (bound.rank, bound.down.shape, bound.up.shape) == (16, (37, 16), (16, 45))
    exact = rsparse_gemv.reference(x.double(), rows, threshold, down, up) + bias
    assert (bound(x) - exact).abs().max() <= 2.0**-10 * exact.abs().max()
    nothing = torch.zeros(0, 37)
    assert bound(nothing).shape == (0, 45)


def accesses(call: Callable[[], object], monkeypatch) -> list[tuple[str, np.ndarray, int]]:
    """What a call's programs load, store and add to: kind, addresses, bytes of one."""
    from triton.runtime.interpreter import InterpreterBuilder as Builder

    seen = []

    def watched(name, at):
        original = getattr(Builder, name)

        def access(self, *args):
            pointer, mask = args[at[0]], args[at[1]]
            size = max(pointer.get_element_ty().primitive_bitwidth // 8, 1)
            seen.append((name, pointer.data[mask.data.astype(bool)].ravel(), size))
            return original(self, *args)

        monkeypatch.setattr(Builder, name, access)

    watched("create_masked_load", (0, 1))
    watched("create_masked_store", (0, 2))
    watched("create_atomic_rmw", (1, 3))
    call()
    monkeypatch.undo()
    return seen


def inside(addresses, size, tensor):
    start = tensor.data_ptr()
    return (addresses >= start) & (addresses + size <= start + tensor.nbytes)


@pytest.mark.parametrize("kind", [torch.bfloat16, "int8", "int4 zeros"])
@pytest.mark.parametrize("deterministic", [True, False])
def test_reads_the_channels_it_needs_once_and_nothing_outside_its_tensors(
    kind, deterministic, monkeypatch
):
    for name, value in (("WARPS", 8), ("AHEAD", 2), ("processors", lambda device: (1, 4))):
        monkeypatch.setattr(triton_plan, name, value)
    rows, x = rows_of(kind, 37, 45), drawn(2, 1, 37)
    down, up, threshold = drawn(3, 37, 7), drawn(4, 7, 45), thresholds(x, 0.7)
    shared = triton_plan.Workspace(torch.device("cpu"))
    bound = kernel.Bound(
        rows, threshold, down, up, deterministic=deterministic, aligned=False, workspace=shared
    )
    bound(x)  # the workspace has its size
    y = torch.empty(1, 45)
    seen = accesses(lambda: bound.into(x, y, 1), monkeypatch)
    given = (x, threshold, rows.values, rows.scales, rows.zeros, down, up)
    read_only = [t for t in given if t is not None]
    written = [y, shared.state, *shared._floats.values()]
    for name, addresses, size in seen:
        allowed = [*read_only, *written] if name == "create_masked_load" else written
        assert np.any([inside(addresses, size, t) for t in allowed], axis=0).all(), name
    kept = (x[0].abs() > threshold).sum().item()
    for tensor, channels in ((rows.values, kept), (down, 37 - kept), (up, 7)):
        width = tensor.nbytes // len(tensor)
        read = np.concatenate([a[inside(a, size, tensor)] for _, a, size in seen])
        entry = tensor.element_size()
        assert len(read) == len(np.unique(read))
        assert len(read) * entry == channels * width


def test_a_call_is_one_launch_and_no_other_operation():
    from torch.utils._python_dispatch import TorchDispatchMode

    operations = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            operations.append(function.name())
            return function(*args, **(kwargs or {}))

    rows, x = rows_of(torch.float32, 37, 45), drawn(2, 2, 37)
    bound = kernel.Bound(rows, thresholds(x, 0.7), drawn(3, 37, 7), drawn(4, 7, 45))
    launched, run = [], kernel._rsparse.run
    y = bound(x)
    kernel._rsparse.run = lambda *a, **k: launched.append(k["grid"])
    try:
        with Watch():
            bound.into(x, y, 2)
    finally:
        kernel._rsparse.run = run
    assert len(launched) == 1
    assert operations == []


def test_the_kernel_is_launched_on_the_device_of_its_argument(monkeypatch):
    devices = []
    device_of = torch.cuda.device_of
    monkeypatch.setattr(torch.cuda, "device_of", lambda x: devices.append(x) or device_of(x))
    x = drawn(2, 1, 9)
    kernel.sparse_gemv(x, rows_of(torch.float32, 9, 11), thresholds(x, 0.7))
    assert [seen is x for seen in devices] == [True]


def test_declines_what_it_cannot_do(monkeypatch):
    rows, x = rows_of(torch.float32, 9, 11), drawn(2, 1, 9)
    threshold = thresholds(x, 0.7)
    with pytest.raises(Unsupported, match="8 rows of float32"):
        kernel.sparse_gemv(drawn(2, 9, 9), rows, threshold)
    with pytest.raises(Unsupported, match="8 rows of float32"):
        kernel.sparse_gemv(x.double(), rows, threshold)
    with pytest.raises(Unsupported, match="thresholds of float32"):
        kernel.sparse_gemv(x, rows, threshold.double())
    with pytest.raises(Unsupported, match="at most float32"):
        kernel.sparse_gemv(x, Rows(rows.values.double(), 11), threshold)
    with pytest.raises(Unsupported, match="factors and bias"):
        kernel.rsparse_gemv(x, rows, threshold, drawn(3, 9, 2).double(), drawn(4, 2, 11))
    with pytest.raises(ValueError, match="go together"):
        kernel.Bound(rows, threshold, drawn(3, 9, 2))
    with pytest.raises(ValueError, match="9 channels"):
        kernel.Bound(rows, threshold)(drawn(2, 1, 8))
    monkeypatch.setattr(kernel.triton, "JITFunction", type(kernel._rsparse))
    with pytest.raises(Unsupported, match="TRITON_INTERPRET"):
        kernel.sparse_gemv(x, rows, threshold)


def test_prepared_binds_it_where_the_weights_are_on_no_cpu():
    """Without a GPU: what `prepare` would bind there, called as it would call it."""
    rows, x = rows_of("int8", 37, 45), drawn(2, 3, 37)
    threshold, down, up = thresholds(x, 0.7), drawn(3, 37, 7), drawn(4, 7, 45)
    run = kernel.bound(prepare(rows, threshold, down, up).weights, torch.float32, 1)
    y = torch.empty(3, 1, 45)
    run(x.view(3, 1, 37), y, 3)
    within_rounding(y.view(3, 45), x, rows, threshold, down, up)
    with pytest.raises(Unsupported, match="float16"):
        kernel.bound(prepare(rows, threshold).weights, torch.float64, 1)
