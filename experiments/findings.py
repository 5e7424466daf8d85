"""What an experiment says of a claim: the measured effect beside the values that were claimed."""

import math
from typing import Literal, NamedTuple

from experiments.intervals import Interval

Verdict = Literal["shown", "not shown", "contradicted", "untested"]


class Region(NamedTuple):
    """The values that a claim allows, low < x < high."""

    low: float = -math.inf
    high: float = math.inf

    def __str__(self) -> str:
        if self.low == -math.inf:
            return f"below {self.high:g}"
        return f"above {self.low:g}" if self.high == math.inf else f"{self.low:g} to {self.high:g}"


ABOVE_ZERO, BELOW_ZERO = Region(low=0.0), Region(high=0.0)


class Finding(NamedTuple):
    """One measured effect for one claim of the roster (`experiments.ledger.claims`).

    claim: its key. case: what of the claim this is ("wanda, 50%"). effect: with its interval and
    n; None where it was not measured, and `note` says why. unit: of the effect ("nats a token",
    "share of the dense model's sinks"). over: what n counts ("windows"). claimed: the values that
    the claim allows. control: what the effect is beside, with its number where it has one.

    The verdict follows from these alone; nobody chooses it.
    """

    claim: str
    case: str
    effect: Interval | None
    unit: str
    over: str
    claimed: Region
    control: str
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """shown: the whole interval is claimed; contradicted: none of it; otherwise not shown.

        An interval that touches the claimed values (an effect of 0 in every unit) is not shown.
        """
        if self.effect is None:
            return "untested"
        low, high = self.effect.low, self.effect.high
        if not (math.isfinite(low) and math.isfinite(high)):
            return "not shown"
        if self.claimed.low < low and high < self.claimed.high:
            return "shown"
        if high < self.claimed.low or low > self.claimed.high:
            return "contradicted"
        return "not shown"
