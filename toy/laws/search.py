"""The least value of a function of one variable that falls and then rises."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_GOLDEN = (np.sqrt(5.0) - 1) / 2


class Least(NamedTuple):
    """Where, and how little."""

    at: float
    value: float


def least(function: Callable[[float], float], low: float, high: float, *, steps: int = 14) -> Least:
    """min of a unimodal function on [low, high], to (high - low) 0.62^steps (golden section)."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(steps):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = function(right)
    return Least(left, at_left) if at_left <= at_right else Least(right, at_right)
