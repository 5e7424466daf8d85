"""Local search about a knapsack: how much groups of linears count, by the loss of the model."""

from collections.abc import Callable, Mapping, Sequence

from bridge.decode.plan import Plan
from bridge.search.knapsack import Costs, knapsack
from bridge.sites import block_of

BANDS = 5


def groups(names: Sequence[str], bands: int = BANDS) -> dict[str, list[str]]:
    """Linears of one kind, and linears of one band of depth: each linear is in two groups."""
    found: dict[str, list[str]] = {}
    depth = 1 + max(map(block_of, names))
    for name in names:
        found.setdefault(name.split(".", 2)[2], []).append(name)
    for name in names:
        band = block_of(name) * bands // depth
        found.setdefault(f"band {band + 1} of {bands}", []).append(name)
    return found


def refine(
    costs: Costs,
    shapes: Mapping[str, tuple[int, int]],
    sparsity: float,
    losses: Callable[[Sequence[Plan]], Sequence[float]],
    *,
    rounds: int = 2,
    step: float = 2.0,
    told: Callable[[str], None] = lambda _: None,
) -> tuple[Plan, float]:
    """The plan of least loss that coordinate search finds, and its loss: `knapsack`'s or better.

    The knapsack is exact for costs that add up; those of many linears together do not. Weights
    w_g, one a group of linears, scale their costs: w_i is the product over the groups of i. Each
    round tries w_g · `step` and w_g / `step` for one group after the other and keeps what lowers
    the loss; the next round steps by the square root. Bytes are the knapsack's, exactly.
    """
    members = groups(list(costs))
    weights = dict.fromkeys(members, 1.0)

    def plan(of: Mapping[str, float]) -> Plan:
        each = dict.fromkeys(costs, 1.0)
        for group, names in members.items():
            for name in names:
                each[name] *= of[group]
        return knapsack(costs, shapes, sparsity, each)

    best = plan(weights)
    loss = losses([best])[0]
    for _ in range(rounds):
        for group in members:
            tried = [{**weights, group: weights[group] * by} for by in (step, 1 / step)]
            plans = [plan(of) for of in tried]
            found = losses(plans)
            least = min(range(len(found)), key=found.__getitem__)
            if found[least] < loss:
                best, loss, weights = plans[least], found[least], tried[least]
                told(f"{group} × {weights[group]:.3g}: loss {loss:.4f}")
        step **= 0.5
    return best, loss


def without_factors(costs: Costs) -> Costs:
    """The candidates of no rank: the control that says what the low-rank term is worth."""
    return {
        name: [c for c in candidates if c.setting.alpha == 1] for name, candidates in costs.items()
    }
