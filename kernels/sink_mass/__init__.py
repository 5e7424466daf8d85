"""Σ_q A[q, k]: the attention that every key receives, without the T × T pattern."""

from ctr_kernels.op import Op, deferred
from ctr_kernels.sink_mass.reference import SinkMass
from ctr_kernels.sink_mass.reference import sink_mass as _reference

__all__ = ["SinkMass", "sink_mass"]

sink_mass = Op(
    reference=_reference,
    cpu=deferred("ctr_kernels.sink_mass.cpu", _reference),
    triton=deferred("ctr_kernels.sink_mass.triton", _reference),
)
