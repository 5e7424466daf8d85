"""Intervals in text: where "x [low, high]" stands in a page, and whether another says the same."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_NUMBER = r"[-+−]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?"
# Between a number and its interval: bold, times, percent, a cell's edge; never a word.
_BETWEEN = r"\*{0,2}(?:x|%)?\*{0,2}\s*\|?\s*"
_FOUND = re.compile(
    rf"(?<![\w.\[(,=-])(?P<mean>{_NUMBER}){_BETWEEN}"
    rf"\[\s*(?P<low>{_NUMBER})%?\s*,\s*(?P<high>{_NUMBER})%?\s*\]"
)


class Figure(NamedTuple):
    """A number with its interval, as printed: the texts of the three, and where they stand."""

    mean: str
    low: str
    high: str
    percent: bool = False
    line: int = 0

    def __str__(self) -> str:
        return f"{self.mean} [{self.low}, {self.high}]"

    def values(self) -> tuple[float, float, float]:
        """The three as numbers."""
        mean, low, high = map(_value, self[:3])
        return mean, low, high


def figures(text: str) -> Iterator[Figure]:
    """Every number with an interval, in the order of the page; a line break may lie within.

    An interval without a number before it (a range of parameters, a row of a matrix) is none, and
    so is one whose ends are the wrong way round.
    """
    for found in _FOUND.finditer(text):
        percent = "%" in found[0]
        line = text.count("\n", 0, found.start()) + 1
        figure = Figure(found["mean"], found["low"], found["high"], percent, line)
        _, low, high = figure.values()
        if low <= high:
            yield figure


def says(printed: Figure, held: Float[np.ndarray, "held 3"]) -> bool:
    """Whether some held mean, low, high are the printed three, rounded to the printed digits.

    A difference may be told from either side (less the one, more the other), a share in percent.
    """
    value = np.array(printed.values())
    room = np.array([_room(text) for text in printed[:3]])
    for scale in (1.0, 100.0) if printed.percent else (1.0,):
        for three in (held, -held[:, [0, 2, 1]]):
            if (np.abs(scale * three - value) <= room).all(axis=1).any():
                return True
    return False


def _value(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))


def _room(text: str) -> float:
    """Half a unit of the last printed digit."""
    digits, _, exponent = text.partition("e")
    decimals = len(digits.partition(".")[2]) - int(exponent or 0)
    whole = digits.replace(",", "")
    if "." not in digits and len(whole.strip("+-−")) > 3:  # 1,050 and 45,000 were rounded
        decimals -= len(whole) - len(whole.rstrip("0"))
    return 0.5 * 10.0**-decimals * (1 + 1e-9) + 1e-12
