"""OWL: blocks with more outliers keep more (Yin et al. 2023, arXiv:2310.05175, section 4)."""

from collections.abc import Mapping, Sequence

from jaxtyping import Int
from torch import Tensor, nn

from bridge.allocate.apportion import spread_about
from bridge.allocate.seen import seen
from bridge.equal import Linear, shapes_of
from bridge.methods.wanda import score
from bridge.sites import block_of, linears
from bridge.statistics import diagonal_moment
from mech.errors import BadInput


def outlier_shares(
    model: nn.Module,
    batches: Sequence[Int[Tensor, "_batch _seq"]],
    *,
    outlier: float = 5.0,
    select: str = "*",
) -> dict[int, float]:
    """D_l = Σ 1[A_ij > M mean A] / Σ 1 over the linears of block l, A_ij = |W_ij| √E[x_j²].

    The mean is of each matrix by itself; M is `outlier`, of which the paper uses 5 and 7. The
    statistics are of the dense model. Raises BadInput where M is not above 0.
    """
    if not outlier > 0:
        raise BadInput(f"outlier {outlier}: above 0")
    states = seen(model, diagonal_moment, batches, select)
    counts: dict[int, tuple[int, int]] = {}
    for name, linear in linears(model, select).items():
        found = score(linear.weight.detach(), states[name])
        above, all_ = counts.get(block_of(name), (0, 0))
        many = int((found > outlier * found.mean()).sum())
        counts[block_of(name)] = above + many, all_ + found.numel()
    return {block: above / all_ for block, (above, all_) in counts.items()}


def owl(
    model: nn.Module,
    batches: Sequence[Int[Tensor, "_batch _seq"]],
    total: int,
    *,
    outlier: float = 5.0,
    spread: float = 0.08,
    select: str = "*",
) -> dict[str, int]:
    """Densities S̄ + λ (2 D̂_l - 1) + s, D̂_l the outlier share scaled to [0, 1] over blocks.

    λ is `spread`. All linears of a block have one density; Σ of the allowances is `total` to the
    parameter, where the release's mean over blocks hits it only for blocks of one size. Raises
    BadInput as `outlier_shares` and `apportion` do.
    """
    shares = outlier_shares(model, batches, outlier=outlier, select=select)
    shapes: Mapping[str, Linear] = shapes_of(model, select)
    return spread_about(
        {name: shares[block_of(name)] for name in shapes},
        {name: linear.parameters for name, linear in shapes.items()},
        total,
        spread,
    )
