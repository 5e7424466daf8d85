"""L + S ≈ A refitted in a metric: the values of S on its mask, then L, each the best there is.

f(L, S) = tr((A - L - S) C (A - L - S)ᵀ), C = E[x xᵀ] in the units that A is in. Where C is the
identity this is the norm that an alternation of SVDs and thresholds lowers; with the whole second
moment it is the error of the layer's outputs.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bridge.splitting import Split

Matrix = Float[Tensor, "d_out d_in"]


class Metric(NamedTuple):
    """C, positive definite, and any V with V Vᵀ = C."""

    moment: Float[Tensor, "d_in d_in"]
    root: Float[Tensor, "d_in d_in"]


def refitted(target: Matrix, split: Split, metric: Metric, *, rounds: int, steps: int) -> Split:
    """`rounds` times: `steps` conjugate-gradient steps on the values of S, then the best L.

    Neither can raise f but by rounding; the mask of S and the rank of L are those of `split`.
    All in the dtype of `target`.
    """
    mask = split.sparse != 0
    for _ in range(rounds):
        low = split.left @ split.right
        sparse = values(target - low, mask, metric, split.sparse, steps)
        left, right = regressed(target - sparse, metric, split.left.shape[1])
        split = split._replace(left=left, right=right, sparse=sparse)
    return split


def values(
    target: Matrix, mask: Bool[Tensor, "d_out d_in"], metric: Metric, start: Matrix, steps: int
) -> Matrix:
    """S on `mask` with tr((A - S) C (A - S)ᵀ) lowered from `start`: conjugate gradients.

    Every row i is a problem of its own, s C_MM = (A C)_iM with M its mask; all rows take a step
    with one product P C. A step lowers the objective of each row, or leaves it where the row is
    solved.
    """
    sparse = start.clone()
    residual = ((target - sparse) @ metric.moment).mul_(mask)
    direction = residual.clone()
    size = residual.square().sum(1, keepdim=True)
    for _ in range(steps):
        image = (direction @ metric.moment).mul_(mask)
        curvature = (direction * image).sum(1, keepdim=True)
        step = torch.where(curvature > 0, size / curvature, 0)
        sparse.addcmul_(step, direction)
        residual.addcmul_(step, image, value=-1)
        before, size = size, residual.square().sum(1, keepdim=True)
        direction.mul_(torch.where(before > 0, size / before, 0)).add_(residual)
    return sparse


def regressed(
    target: Matrix, metric: Metric, rank: int
) -> tuple[Float[Tensor, "d_out rank"], Float[Tensor, "rank d_in"]]:
    """The L of rank r with the least tr((A - L) C (A - L)ᵀ): U and Uᵀ A, L = U Uᵀ A.

    U are the top left singular vectors of A V, the eigenvectors of A C Aᵀ: reduced-rank
    regression (Izenman 1975). They come from the smaller of the two Gram matrices, and C is never
    inverted.
    """
    image = target @ metric.root
    if len(image) <= image.shape[1]:
        left = _top(image @ image.mT, rank)
    else:
        left = torch.linalg.qr(image @ _top(image.mT @ image, rank)).Q
    return left, left.mT @ target


def _top(gram: Float[Tensor, "n n"], rank: int) -> Float[Tensor, "n rank"]:
    return torch.linalg.eigh(gram).eigenvectors[:, len(gram) - rank :]


def objective(difference: Matrix, metric: Metric) -> float:
    """tr(E C Eᵀ) = ‖E V‖², summed in float64."""
    return float((difference @ metric.root).double().square().sum())
