"""A statement together with the cases that could refute it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Claim(NamedTuple):
    """ratios(rng, n): at least n cases of the statement, which holds where all are <= 1."""

    statement: str  # one line of mathematics
    source: str  # the heading of its proof in docs/theory.md
    ratios: Callable[[np.random.Generator, int], Float[np.ndarray, " case"]]


class Found(NamedTuple):
    """What the cases of one claim came to."""

    cases: int
    violations: int  # ratios above 1, and ratios that are not numbers
    largest: float  # NaN if any is


def examine(claim: Claim, rng: np.random.Generator, n: int) -> Found:
    """Try one claim on at least n cases. A NaN is a violation, never a pass."""
    ratios = claim.ratios(rng, n)
    return Found(len(ratios), int((~(ratios <= 1)).sum()), float(ratios.max()))
