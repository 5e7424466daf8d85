"""Every kernel of HT_k equals the definition bit by bit; the definition equals plain Python."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctr_kernels.hard_threshold import hard_threshold
from ctr_kernels.op import Unsupported

BACKENDS = ("reference", *hard_threshold.kernels)
DTYPES = {
    "reference": (torch.float64, torch.float32, torch.bfloat16, torch.float16),
    "cpu": (torch.float32,),
    "triton": (torch.float32, torch.bfloat16, torch.float16),
}
CASES = [(backend, dtype) for backend in BACKENDS for dtype in DTYPES[backend]]


def plainly(rows: list[list[float]], keep: int) -> list[list[float]]:
    """Restated without tensors: take the largest left, again and again, the first of equals."""
    result = []
    for row in rows:
        left = dict(enumerate(row))
        kept = [0.0] * len(row)
        for _ in range(keep):
            best = max(left, key=lambda j: (abs(left[j]), -j))
            kept[best] = left.pop(best)
        result.append(kept)
    return result


def matrices(magnitudes):
    return st.integers(1, 5).flatmap(
        lambda d_in: st.lists(
            st.lists(magnitudes, min_size=d_in, max_size=d_in), min_size=1, max_size=3
        )
    )


# Few distinct values: most rows are decided by ties. The second half differs only in low bits.
TIED = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 1e-40, -1e-40])
CLOSE = st.integers(0, 3).map(lambda n: (-1.0) ** n * (1.0 + n * 2.0**-7))


@pytest.mark.parametrize("backend", BACKENDS)
@given(matrices(TIED | CLOSE), st.integers(0, 5))
def test_is_the_plain_definition(backend, rows, keep):
    keep = min(keep, len(rows[0]))
    x = torch.tensor(rows, dtype=torch.float32)
    assert hard_threshold.on(backend)(x, keep).tolist() == plainly(x.tolist(), keep)


@pytest.mark.parametrize(("backend", "dtype"), CASES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 63), (5, 100), (2, 128), (7, 129), (2, 1537)])
def test_agrees_with_the_definition_at_odd_sizes(backend, dtype, shape, generator):
    x = torch.randn(shape, generator=generator).to(dtype)
    for keep in {0, 1, shape[1] // 3, shape[1] - 1, shape[1]}:
        got = hard_threshold.on(backend)(x, keep)
        torch.testing.assert_close(got, hard_threshold.on("reference")(x, keep), rtol=0, atol=0)
        assert got.dtype == dtype


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bit", range(31))
def test_every_bit_of_the_threshold_counts(backend, bit):
    """Two magnitudes that differ in one bit: the larger stays, of two the first."""
    base = 0x3F2AAAAA if bit < 23 else 0x2AAAAAAA
    low, high = sorted((base, base ^ (1 << bit)))
    rows = [[low, high, low], [high, low, low], [low, high, high]]
    x = torch.tensor(rows, dtype=torch.int32).view(torch.float32)
    kept = hard_threshold.on(backend)(x, 1) != 0
    assert kept.tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_leaves_its_argument_alone_and_reads_views(backend, generator):
    wide = torch.randn(9, 40, generator=generator)
    before = wide.clone()
    for view in (wide[1:6, 3:20], wide.mT[2:30:3], wide[:, ::2]):
        got = hard_threshold.on(backend)(view, 4)
        expected = hard_threshold.on("reference")(view.clone(), 4)
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    torch.testing.assert_close(wide, before, rtol=0, atol=0)
    whole = hard_threshold.on(backend)(wide, 40)
    assert whole.data_ptr() != wide.data_ptr()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("keep", [-1, 4])
def test_refuses_a_count_that_no_row_has(backend, keep):
    with pytest.raises(ValueError, match=f"keep={keep}"):
        hard_threshold.on(backend)(torch.ones(2, 3), keep)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_rows_is_no_rows(backend):
    assert hard_threshold.on(backend)(torch.ones(0, 3), 2).shape == (0, 3)


def test_kernels_decline_what_they_cannot_do():
    with pytest.raises(Unsupported, match="float32"):
        hard_threshold.on("cpu")(torch.ones(2, 3).double(), 1)
    with pytest.raises(Unsupported, match="float32"):
        hard_threshold.on("triton")(torch.ones(2, 3).double(), 1)
    with pytest.raises(Unsupported, match="16384"):
        hard_threshold.on("triton")(torch.ones(1, 16385), 1)


def test_the_kernel_is_launched_on_the_device_of_its_argument(generator, monkeypatch):
    """Triton takes the current device, which is the first: a second GPU's matrix is not there."""
    devices = []
    device_of = torch.cuda.device_of
    monkeypatch.setattr(torch.cuda, "device_of", lambda x: devices.append(x) or device_of(x))
    x = torch.randn(3, 7, generator=generator)
    hard_threshold.on("triton")(x, 2)
    assert [seen is x for seen in devices] == [True]
