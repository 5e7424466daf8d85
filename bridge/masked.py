"""A term of which only a part is in force: what a head-wise switch leaves standing."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bridge.operators import LinearOperator, Weight


class Masked(LinearOperator):
    """M ∘ T: the entries of a term's matrix where M is true, zero elsewhere.

    Counts are the term's: what is switched off is stored all the same. It lives as long as the
    switch that put it there (`bridge.toggle.without`), and in no checkpoint.
    """

    def __init__(self, term: LinearOperator, mask: Bool[Tensor, "d_out d_in"]):
        super().__init__()
        self.term = term
        # No buffer: it is none of the model's numbers, and `.to(dtype)` is not for it.
        self.mask = mask

    @property
    def shape(self) -> tuple[int, int]:
        return self.term.shape

    def matrix(self) -> Weight:
        stored = self.term.dense()
        return torch.where(self.mask.to(stored.device), stored, 0)

    def product(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        return nn.functional.linear(x, self.matrix())

    def parameters_kept(self) -> int:
        return self.term.parameters_kept()

    def bits(self) -> int:
        return self.term.bits()

    def flops(self) -> int:
        return self.term.flops()

    def inner(self) -> int:
        return self.term.inner()
