"""Quantiles of a stream in memory that does not grow with it: for models whose rows do not fit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bridge.decode.inputs import column_scale, levelled
from bridge.decode.places import HEAD, planned
from bridge.decode.plan import Plan, Rule, Setting
from bridge.decode.reading import Ids, Masks, read
from mech.errors import BadInput

SHIFT = 15
"""Bits of a float32 that a bin does not see: eight bits of the fraction are left."""
BINS = 1 << (31 - SHIFT)


class Histogram(NamedTuple):
    """Counts of |v| by the leading bits of its float32: bins that are 2^-8 of their value wide.

    No range has to be known before. Law: merge(h(x), h(y)) = h(x ∪ y), exactly.
    """

    counts: Int[Tensor, " bins"]

    @classmethod
    def of(cls, values: Float[Tensor, "*shape"]) -> "Histogram":
        """Of finite numbers."""
        bits = values.detach().float().abs().flatten().view(torch.int32)
        return cls(torch.bincount(bits >> SHIFT, minlength=BINS).cpu())

    @classmethod
    def empty(cls) -> "Histogram":
        """Of no numbers."""
        return cls(torch.zeros(BINS, dtype=torch.int64))

    def merge(self, other: "Histogram") -> "Histogram":
        """Of the numbers of both."""
        return Histogram(self.counts + other.counts)

    def quantile(self, share: float) -> float:
        """As `bridge.decode.inputs.quantile`, to 2^-8 of itself: linear within its bin."""
        total = int(self.counts.sum())
        rank = -int(-(share * total - 1e-6) // 1)
        if share >= 1 or rank < 1:
            return float("inf") if share >= 1 else -1.0
        below = self.counts.cumsum(0)
        number = int((below < rank).sum())
        count = int(self.counts[number])
        edges = torch.tensor([number, number + 1], dtype=torch.int32) << SHIFT
        low, high = edges.view(torch.float32).tolist()
        return low + (high - low) * (rank - int(below[number]) + count) / count


@dataclass(frozen=True)
class Streamed:
    """By name, the rule that was streamed and the histogram of |x_j|, or of |x_j| ‖W_:j‖."""

    seen: Mapping[str, tuple[Rule, Histogram]]

    def rows(self, name: str) -> Float[Tensor, "tokens d_in"]:
        """There are none: raises BadInput."""
        raise BadInput(f"{name}: histograms keep no rows; calibrate() does, for factors 'moment'")

    def thresholds(
        self, name: str, weight: Float[Tensor, "d_out d_in"], setting: Setting
    ) -> Float[Tensor, " d_in"]:
        """As `Inputs.thresholds`. Raises BadInput where this rule was not streamed."""
        rule, found = self.seen.get(name, (None, None))
        if found is None or rule != setting.rule:
            raise BadInput(f"{name}: no histogram for the rule {setting.rule!r}: stream its plan")
        level = found.quantile(1 - setting.channels(*weight.shape))
        size = column_scale(weight) if rule == "column" else None
        return levelled(level, weight.shape[1], size)


def stream(
    model: nn.Module,
    plan: Plan,
    batches: Sequence[Ids],
    *,
    exclude: Masks | None = None,
    advance: Callable[[str], None] | None = None,
) -> Streamed:
    """What a plan's rules need of `batches`: 512 KiB a linear, however long the text.

    Errors as for `calibrate`.
    """
    scales = {
        name: column_scale(linear.weight)
        for name, linear in planned(model, plan).items()
        if plan[name].rule == "column"
    }
    seen: dict[str, tuple[Rule, Histogram]] = {}

    def take(name: str, x: Tensor, _: Tensor | None) -> None:
        if name not in plan:
            return
        values = x.float() * scales[name].to(x.device) if name in scales else x
        before = seen[name][1] if name in seen else Histogram.empty()
        seen[name] = plan[name].rule, before.merge(Histogram.of(values))

    read(model, batches, take, head=HEAD in plan, share=False, exclude=exclude, advance=advance)
    if not seen:
        raise BadInput("there is no calibration token to count: give more text")
    return Streamed(seen)
