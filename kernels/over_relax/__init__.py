"""B = Z + η (R - HT_k(R)) with Z = L + β (L - L₋), R = A - Z: one pass over four matrices."""

from ctr_kernels.op import Op, deferred
from ctr_kernels.over_relax.reference import over_relax as _reference

over_relax = Op(reference=_reference, cpu=deferred("ctr_kernels.over_relax.cpu", _reference))
