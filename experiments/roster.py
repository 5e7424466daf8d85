"""Methods by the names and options of the command line."""

from typing import TYPE_CHECKING

from experiments.settings import Budget

if TYPE_CHECKING:  # torch is imported when a question is asked, not for --help
    from bridge.methods import OATS, Magnitude, Wanda


def oats(budget: Budget) -> "OATS":
    """OATS within the budget.

    Raises:
        BadInput: a sparsity outside (0, 1), a rank ratio outside [0, 1), no iterations.
    """
    from bridge.methods import OATS

    _check(budget)
    return OATS(
        compression=budget.sparsity, rank_ratio=budget.rank_ratio, iterations=budget.iterations
    )


def build(name: str, budget: Budget) -> "Magnitude | Wanda | OATS":
    """The method with the papers' comparison group: the whole matrix for magnitude, rows for Wanda.

    Raises:
        BadInput: an unknown name (the nearest ones are offered), a budget that cannot be.
    """
    from bridge.methods import OATS, Magnitude, Wanda, method
    from bridge.patterns import LayerWise, RowWise

    _check(budget)
    kind = method(name)
    if kind is OATS:
        return oats(budget)
    if kind is Wanda:
        return Wanda(RowWise(1 - budget.sparsity))
    return Magnitude(LayerWise(1 - budget.sparsity))


def _check(budget: Budget) -> None:
    from mech.errors import BadInput

    if not 0 < budget.sparsity < 1:
        raise BadInput(
            f"sparsity {budget.sparsity} is not in (0, 1): 0.5 removes half of the weights"
        )
