"""What a layer's inputs looked like: streaming sums over tokens.

Sums, not means: two of them merge by addition, over batches here and over ranks by all-reduce,
and how tokens are split into batches cannot matter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

S = TypeVar("S")
Inputs = Float[Tensor, "tokens d_in"]


@dataclass(frozen=True)
class Statistic(Generic[S]):
    """Pure functions: `init(d_in)`, `update(state, inputs)`, `merge(state, state)`.

    Law: update(update(init, x), y) = merge(update(init, x), update(init, y)) = update(init, x∪y).
    """

    init: Callable[[int], S]
    update: Callable[[S, Inputs], S]
    merge: Callable[[S, S], S]


class Count(NamedTuple):
    """How many tokens were seen, and nothing of them."""

    tokens: int


class Moment(NamedTuple):
    """Σ_t x_tj² over `tokens` tokens, one entry a channel j, in float64.

    Examples:
        >>> import torch
        >>> state = diagonal_moment.init(2)
        >>> state = diagonal_moment.update(state, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        >>> state.mean.tolist()
        [5.0, 10.0]
    """

    total: Float[Tensor, " d_in"]
    tokens: int

    @property
    def mean(self) -> Float[Tensor, " d_in"]:
        """E[x_j²] over tokens (the releases of Wanda and OATS divide by sequences)."""
        return self.total / self.tokens


class SecondMoment(NamedTuple):
    """Σ_t x_t x_tᵀ over `tokens` tokens, in float64."""

    total: Float[Tensor, "d_in d_in"]
    tokens: int

    @property
    def mean(self) -> Float[Tensor, "d_in d_in"]:
        """R = E[x xᵀ] over tokens."""
        return self.total / self.tokens

    @property
    def diagonal(self) -> Moment:
        """Σ_t x_tj², what a method that looks at channels one by one reads."""
        return Moment(self.total.diagonal().clone(), self.tokens)


def _square_sum(moment: Moment, x: Inputs) -> Moment:
    # Products of float32 are exact in float64: the order of the tokens moves the last bits only.
    total = x.detach().double().square().sum(0)
    return Moment(moment.total.to(total.device) + total, moment.tokens + len(x))


def _outer_sum(moment: SecondMoment, x: Inputs) -> SecondMoment:
    # In float64 throughout: a massive channel's square would hide the others' in a float32 sum.
    x = x.detach().double()
    return SecondMoment(torch.addmm(moment.total.to(x.device), x.mT, x), moment.tokens + len(x))


nothing = Statistic(
    init=lambda d_in: Count(0),
    update=lambda count, x: Count(count.tokens + len(x)),
    merge=lambda a, b: Count(a.tokens + b.tokens),
)
diagonal_moment = Statistic(
    init=lambda d_in: Moment(torch.zeros(d_in, dtype=torch.float64), 0),
    update=_square_sum,
    merge=lambda a, b: Moment(a.total + b.total.to(a.total.device), a.tokens + b.tokens),
)
second_moment = Statistic(
    init=lambda d_in: SecondMoment(torch.zeros(d_in, d_in, dtype=torch.float64), 0),
    update=_outer_sum,
    merge=lambda a, b: SecondMoment(a.total + b.total.to(a.total.device), a.tokens + b.tokens),
)
