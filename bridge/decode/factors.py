"""Low-rank stand-ins for what a mask leaves out: of the weight alone, or of what it is given."""

import torch
from jaxtyping import Float
from torch import Tensor

from bridge.decode.plan import Factors
from bridge.moments import factor
from ctr_kernels.sparse_gemv.reference import active
from mech.errors import BadInput

Pair = tuple[Float[Tensor, "d_in rank"], Float[Tensor, "rank d_out"]]


def down_up(
    weight: Float[Tensor, "d_out d_in"],
    rank: int,
    kind: Factors,
    x: Float[Tensor, "tokens d_in"] | None = None,
    threshold: Float[Tensor, " d_in"] | None = None,
    damping: float = 0.01,
) -> Pair:
    """Wᵀ ≈ `down` @ `up` on the rest of x, e = x where |x_j| ≤ t_j and 0 elsewhere; float32.

    svd: U_r S_r V_rᵀ, the nearest matrix of that rank (R-Sparse). moment: U_r U_rᵀ W, U_r the top
    left vectors of W R^½, R = E[e eᵀ] over the rows of x: the least E‖(W - Ŵ) e‖² that the rank
    allows, R damped by λ mean R_jj as in `bridge.moments` (output PCA; ASVD's and QERA's optimum).
    A rest of nothing but zeros leaves plain SVD. Rank 0 gives matrices without columns.

    Raises BadInput where the rank is none that the weight has, and where "moment" lacks x or
    thresholds.
    """
    d_out, d_in = weight.shape
    if not 0 <= rank <= min(d_out, d_in):
        raise BadInput(f"rank {rank} of a {d_out} x {d_in} weight")
    if kind == "moment" and (x is None or threshold is None):
        raise BadInput("factors 'moment' need rows of inputs and thresholds: calibrate first")
    wide = weight.detach().double()
    if rank == 0:
        return wide.new_zeros(d_in, 0).float(), wide.new_zeros(0, d_out).float()
    if kind == "svd":
        u = left(wide, rank)
        # Half of the singular values in each: neither half leaves the range of float16.
        right = wide.mT @ u
        root = right.norm(dim=0).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        return (right / root).float(), (u * root).mT.float().contiguous()
    assert x is not None
    assert threshold is not None
    rest = torch.where(active(x, threshold), 0, x).to(wide)
    upper = factor(rest.mT @ rest / len(rest), damping).upper
    u = left(wide @ upper, rank)
    return (wide.mT @ u).float(), u.mT.float().contiguous()


def left(matrix: Float[Tensor, "rows columns"], rank: int) -> Float[Tensor, "rows rank"]:
    """U_r: the left singular vectors of the largest singular values, in float64.

    By the eigenvectors of the smaller Gram matrix: exact to what is left of float64 after
    squaring, which moves singular values below 1e-8 of the largest only.
    """
    rows, columns = matrix.shape
    if rows <= columns:
        return torch.linalg.eigh(matrix @ matrix.mT).eigenvectors[:, -rank:].flip(1)
    right = torch.linalg.eigh(matrix.mT @ matrix).eigenvectors[:, -rank:].flip(1)
    # Orthonormal also where singular values are zero, which a division would not survive.
    return torch.linalg.qr(matrix @ right).Q
