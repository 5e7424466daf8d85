"""Every kernel of Σ_q A[q, k] answers to the definition in float64, on every kind of mask."""

import pytest
import torch

from ctr_kernels.sink_mass import sink_mass


@pytest.mark.parametrize("backend", ["cpu"])
def test_agrees_with_the_definition(backend, generator):
    q, k, v = (
        torch.randn(2, t, n, 7, generator=generator).transpose(1, 2)
        for n, t in ((9, 131), (3, 150), (3, 150))
    )
    truth = sink_mass.on("reference")(q.double(), k.double(), v.double(), scaling=0.3)
    found = sink_mass.on(backend)(q, k, v, scaling=0.3)
    for name, a, b in zip(truth._fields, found, truth, strict=True):
        assert a is not None and b is not None
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6, msg=name)
