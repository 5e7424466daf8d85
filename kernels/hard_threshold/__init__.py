"""HT_k(x): the k entries of largest magnitude of every row, the rest zero."""

from ctr_kernels.hard_threshold.reference import hard_threshold as _reference
from ctr_kernels.op import Op, deferred

hard_threshold = Op(
    reference=_reference,
    cpu=deferred("ctr_kernels.hard_threshold.cpu", _reference),
    triton=deferred("ctr_kernels.hard_threshold.triton", _reference),
)
