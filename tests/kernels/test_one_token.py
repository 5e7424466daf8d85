"""The calls between linears equal their definitions in float64, at odd sizes, in both formats."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctr_kernels.one_token import add_norm, attend, cpu, gate

# A rounding of the format, and one of float32 sums; relative to the largest entry.
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 2**-8}
formats = pytest.mark.parametrize("dtype", ROUNDING)
sizes = st.integers(1, 41)
seeds = st.integers(0, 2**31)


def shared(x):
    """The same memory, as compiled code reads it."""
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


def drawn(seed, dtype, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(found, wanted, dtype):
    assert bool(found.isfinite().all())
    # Below e^-87 a sigmoid is nothing that a sum could tell from zero.
    assert (found.double() - wanted).abs().max() <= ROUNDING[dtype] * wanted.abs().max() + 1e-30


@formats
@given(batch=st.integers(1, 4), d_model=sizes, seed=seeds)
def test_add_norm(dtype, batch, d_model, seed):
    resid, weight = drawn(seed, torch.float32, batch, d_model), drawn(seed, torch.float32, d_model)
    delta, x = drawn(seed + 1, dtype, batch, d_model), torch.empty(batch, d_model, dtype=dtype)
    wanted_resid, wanted = add_norm(resid.double(), delta.double(), weight.double(), 1e-5)
    cpu.add_norm(shared(resid), shared(delta), weight.numpy(), np.float32(1e-5), shared(x))
    close(resid, wanted_resid, torch.float32)
    close(x, wanted, dtype)


@formats
@given(batch=st.integers(1, 4), d_mlp=sizes, seed=seeds, size=st.sampled_from([1, 30, 1e4]))
def test_gate(dtype, batch, d_mlp, seed, size):
    gated, up = (drawn(s, dtype, batch, d_mlp) for s in (seed, seed + 1))
    gated *= size
    x = torch.empty(batch, d_mlp, dtype=dtype)
    cpu.gate(shared(gated), shared(up), shared(x))
    close(x, gate(gated.double(), up.double()), dtype)


def test_gate_passes_nan_on():
    gated, x = torch.tensor([[torch.nan, 1.0]]), torch.empty(1, 2)
    cpu.gate(gated.numpy(), torch.ones(1, 2).numpy(), x.numpy())
    assert x.isnan().tolist() == [[True, False]]


@formats
@given(
    batch=st.integers(1, 3),
    n_kv=st.integers(1, 3),
    group=st.integers(1, 3),
    half=st.integers(1, 9),
    length=st.integers(0, 37),
    seed=seeds,
)
def test_attend(dtype, batch, n_kv, group, half, length, seed):
    n_heads, d_head, room = n_kv * group, 2 * half, length + 3
    q, k, v = (
        drawn(seed + i, dtype, batch, heads * d_head)
        for i, heads in enumerate((n_heads, n_kv, n_kv))
    )
    turns = drawn(seed + 3, torch.float32, batch, half)
    angles = torch.stack([turns.cos(), turns.sin()], 1)
    keys, values = (drawn(seed + i, dtype, batch, n_kv, room, d_head) for i in (4, 5))
    # What nobody wrote yet must not be read.
    keys[:, :, length:] = values[:, :, length:] = torch.nan
    seen = drawn(seed + 6, torch.float32, batch, room) > -1
    before = keys.clone(), values.clone()
    heads = [x.double().view(batch, -1, d_head) for x in (q, k, v)]
    rest = (length, seen, d_head**-0.5)
    wanted = attend(heads[0], heads[1], heads[2], angles.double(), before[0], before[1], *rest)
    out = torch.empty(batch, n_heads * d_head, dtype=dtype)
    work = np.empty(room, np.float32), np.empty((n_heads + n_kv, d_head), np.float32)
    given = (shared(x) for x in (q, k, v, angles, keys, values))
    cpu.attend(*given, length, seen.numpy(), np.float32(rest[2]), *work, shared(out))  # type: ignore
    # Both have rounded keys and values where they store them.
    close(out, wanted.view(batch, -1), dtype)
    for found, exact in zip((keys, values), before, strict=True):
        assert bool(found[:, :, length + 1 :].isnan().all())
        close(found[:, :, : length + 1], exact[:, :, : length + 1].double(), dtype)
