"""What a linear reads by kind of token: a mean for each kind, and the spread about the means."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bridge.statistics import Inputs, Moment


class Grouped(NamedTuple):
    """Σ 1, Σ x and Σ x_j² over the tokens of each group g, in float64."""

    tokens: Float[Tensor, " groups"]
    total: Float[Tensor, "groups d_in"]
    square: Float[Tensor, "groups d_in"]

    @classmethod
    def empty(cls, groups: int, d_in: int) -> "Grouped":
        """Of no tokens."""
        zeros = torch.zeros(groups, d_in, dtype=torch.float64)
        return cls(zeros[:, 0].clone(), zeros, zeros)

    def with_inputs(self, x: Inputs, labels: Int[Tensor, " tokens"]) -> "Grouped":
        """And `x`, whose token t is of group labels[t]."""
        one = torch.nn.functional.one_hot(labels.to(x.device), len(self.tokens)).double()
        x = x.detach().double()
        return Grouped(
            self.tokens.to(x.device) + one.sum(0),
            self.total.to(x.device) + one.mT @ x,
            self.square.to(x.device) + one.mT @ x.square(),
        )

    @property
    def means(self) -> Float[Tensor, "groups d_in"]:
        """μ_g = E[x | g]; zero for a group without tokens."""
        return self.total / self.tokens.clamp_min(1)[:, None]

    def moment(self, centred: tuple[int, ...] = ()) -> Moment:
        """Σ_t x_tj², of the groups in `centred` about their means: Σ_t (x_tj - μ_gj)²."""
        square = self.square.clone()
        for group in centred:
            square[group] -= self.tokens[group] * self.means[group].square()
        # A difference of sums that may agree to the last bit.
        return Moment(square.clamp_min(0).sum(0), int(self.tokens.sum()))

    def basis(self, groups: tuple[int, ...]) -> Float[Tensor, "d_in p"]:
        """Orthonormal P of the span of the means of these groups; p ≤ len(groups).

        A mean that lies in the span of the others (an empty group, a dead input) gives none.
        """
        means = self.means[list(groups)]
        size = means.norm(dim=1, keepdim=True)
        unit = means / size.clamp_min(torch.finfo(torch.float64).tiny)
        u, s, _ = torch.linalg.svd(unit.mT, full_matrices=False)
        # The means are float64 sums of float32 numbers: what is below their rounding is none.
        return u[:, s > 1e-6]
