"""Methods by the names and options of the command line."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is imported when a question is asked, not for --help
    from bridge.methods import OATS, Magnitude, Wanda


def build(
    name: str, sparsity: float, *, rank_ratio: float = 0.25, iterations: int = 80
) -> "Magnitude | Wanda | OATS":
    """The method with the papers' comparison group: the whole matrix for magnitude, rows for Wanda.

    Raises:
        BadInput: an unknown name (the nearest ones are offered), a sparsity outside (0, 1).
    """
    from bridge.methods import OATS, Magnitude, Wanda, method
    from bridge.patterns import LayerWise, RowWise
    from mech.errors import BadInput

    if not 0 < sparsity < 1:
        raise BadInput(f"sparsity {sparsity} is not in (0, 1): 0.5 removes half of the weights")
    kind = method(name)
    if kind is OATS:
        return OATS(compression=sparsity, rank_ratio=rank_ratio, iterations=iterations)
    if kind is Wanda:
        return Wanda(RowWise(1 - sparsity))
    return Magnitude(LayerWise(1 - sparsity))
