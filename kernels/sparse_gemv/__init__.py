"""y = W (x masked by |x_j| > t_j), and the same with a low-rank stand-in for what is left out."""

from ctr_kernels.op import Op, deferred
from ctr_kernels.sparse_gemv.prepared import Prepared as Prepared
from ctr_kernels.sparse_gemv.prepared import prepare as prepare
from ctr_kernels.sparse_gemv.reference import rsparse_gemv as _rsparse_gemv
from ctr_kernels.sparse_gemv.reference import sparse_gemv as _sparse_gemv
from ctr_kernels.sparse_gemv.rows import Rows as Rows

sparse_gemv = Op(
    reference=_sparse_gemv,
    cpu=deferred("ctr_kernels.sparse_gemv.cpu", _sparse_gemv),
    triton=deferred("ctr_kernels.sparse_gemv.triton", _sparse_gemv),
)
rsparse_gemv = Op(
    reference=_rsparse_gemv,
    cpu=deferred("ctr_kernels.sparse_gemv.cpu", _rsparse_gemv),
    triton=deferred("ctr_kernels.sparse_gemv.triton", _rsparse_gemv),
)
