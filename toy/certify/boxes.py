"""What a certificate speaks about: a box of inputs times a cell of parameters, and its halves.

The axes are x1 .. xT without xt, then s, b, d. Every end is a rational number, so that halving is
exact and the halves cover their box without a gap.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from toy.errors import NoMagnitude, NonPositiveQuery, Refused, ScaleTooSmall
from toy.inputs import check_segment

Ends = tuple[Fraction, Fraction]
Box = Mapping[str, Ends]
PARAMETERS = ("s", "b", "d")


@dataclass(frozen=True)
class Statement:
    """|f(x) - m(x)| <= fraction * B(T, t, X; s, b, d) for all x in [-X, X]^T, (s, b, d) in a cell.

    B is Theorem B (docs/theory.md) at the same s, b, d; the cell is s x b x d; x_t has no meaning.
    Raises `NoSegment`, `NoMagnitude`, `ScaleTooSmall`, `NonPositiveQuery` (d must be positive),
    `Refused` (ends out of order, fraction not positive).
    """

    T: int
    t: int
    X: Fraction
    s: Ends
    b: Ends
    d: Ends
    fraction: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        check_segment(self.T, self.t)
        if self.X <= 0:
            raise NoMagnitude(f"X = {self.X} bounds no numbers: give X > 0")
        for name in PARAMETERS:
            low, high = getattr(self, name)
            if low > high:
                raise Refused(
                    f"{name} from {low} to {high} is no interval: put the lower end first"
                )
        if self.s[0] <= 1:
            raise ScaleTooSmall(f"s_tag from {float(self.s[0]):.6g}: the whole cell must exceed 1")
        if self.d[0] <= 0:
            raise NonPositiveQuery(f"d from {float(self.d[0]):.6g}: the whole cell must exceed 0")
        if self.fraction <= 0:
            raise Refused(f"fraction = {self.fraction}: give a positive part of the bound")

    @property
    def box(self) -> Box:
        """The whole of it: what the leaves of a certificate have to cover."""
        numbers = {f"x{i}": (-self.X, self.X) for i in range(1, self.T + 1) if i != self.t}
        return numbers | {name: getattr(self, name) for name in PARAMETERS}


def middle(ends: Ends) -> Fraction:
    """The number halfway."""
    return (ends[0] + ends[1]) / 2


def halves(box: Box, axis: str) -> tuple[Box, Box]:
    """The lower and the upper half along `axis`, which share their face."""
    low, high = box[axis]
    cut = middle((low, high))
    return {**box, axis: (low, cut)}, {**box, axis: (cut, high)}


def locate(box: Box, path: Iterable[str]) -> Box:
    """The part of `box` that steps such as "x6+" (upper half) and "s-" (lower half) lead to."""
    for step in path:
        box = halves(box, step[:-1])[step[-1] == "+"]
    return box
