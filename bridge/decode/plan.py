"""What every linear may read a token: the numbers that a search looks for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mech.errors import BadInput

Rule = Literal["magnitude", "column"]
Factors = Literal["svd", "moment"]


@dataclass(frozen=True)
class Setting:
    """Of one linear: a share 1 - s of its dense bytes is read, ρ of that share as input channels.

    rank r = ⌊(1 - s)(1 - ρ) d_out d_in / (d_out + d_in)⌋ goes to the low-rank stand-in for what
    is left out; everything else that the budget allows goes to channels, so that channels and
    factors together cost (1 - s) d_out d_in numbers exactly, whatever the rounding of r.

    Raises BadInput for a sparsity or ρ outside [0, 1].
    """

    sparsity: float
    """s: the share of the dense weight that is not read."""
    alpha: float = 1.0
    """ρ: the share of what is read that is channels; 1 is activation sparsity alone (TEAL)."""
    rule: Rule = "magnitude"
    """A channel is read where |x_j| > t (magnitude) or |x_j| ‖W_:j‖₂ > t (column)."""
    factors: Factors = "svd"
    """How the stand-in is fitted: truncated SVD of W, or least output error on what is left out."""

    def __post_init__(self):
        for name, value in (("sparsity", self.sparsity), ("alpha", self.alpha)):
            if not 0 <= value <= 1:
                raise BadInput(f"{name} {value}: a share, from 0 to 1")

    def rank(self, d_out: int, d_in: int) -> int:
        """r, of the true shape."""
        spent = (1 - self.sparsity) * (1 - self.alpha) * d_out * d_in
        # A budget that is a whole number of ranks but for the last bit is that whole number.
        return int(spent / (d_out + d_in) + 1e-9)

    def channels(self, d_out: int, d_in: int) -> float:
        """The share of the input channels that is read, on average over tokens."""
        factors = self.rank(d_out, d_in) * (d_out + d_in)
        return min(1.0, max(0.0, 1 - self.sparsity - factors / (d_out * d_in)))


Plan = Mapping[str, Setting]
"""A setting a linear, by its full name; linears that are not named stay dense."""


def read_share(plan: Plan, shapes: Mapping[str, tuple[int, int]]) -> float:
    """Numbers read a token over those of the dense linears, `shapes` (d_out, d_in) by name.

    Linears outside the plan count as read whole.
    """
    whole = sum(d_out * d_in for d_out, d_in in shapes.values())
    read = 0.0
    for name, (d_out, d_in) in shapes.items():
        if name not in plan:
            read += d_out * d_in
            continue
        setting = plan[name]
        read += setting.channels(d_out, d_in) * d_out * d_in
        read += setting.rank(d_out, d_in) * (d_out + d_in)
    return read / whole
