"""The hypotheses of the theorem, each checked once and refused by its own name."""

import math

import numpy as np
from jaxtyping import Bool, Float

from toy.errors import NoMagnitude, NoSegment, NotCausal, NotFinite, Refused, ScaleTooSmall


def check_segment(seq: int, t: int) -> None:
    """1 <= t < T, so that numbers follow [SEP]. Raises `NoSegment`."""
    if seq < 2:
        raise NoSegment(
            f"a sequence of {seq} token(s) has no numbers to average: give at least [SEP] and one"
        )
    if not 1 <= t < seq:
        raise NoSegment(
            f"[SEP] at t = {t} of T = {seq} leaves no numbers to average: "
            f"give t in 1..{seq - 1} (positions count from 1)"
        )


def check_numbers(**numbers: float) -> None:
    """Every named number is real. Raises `NotFinite` with its name."""
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise NotFinite(f"{name} = {value} is not a finite number")


def check_scale(s_tag: float) -> None:
    """s_tag > 1. Raises `NotFinite`, `ScaleTooSmall`."""
    check_numbers(s_tag=s_tag)
    if s_tag <= 1:
        raise ScaleTooSmall(
            f"s_tag = {s_tag:.6g} makes no sink: it must exceed 1; "
            "`smallest_s_tag` gives the least one with a guarantee"
        )


def check_magnitude(X: float) -> None:
    """0 < X, with a finite square. Raises `NotFinite`, `NoMagnitude`."""
    check_numbers(X=X)
    if X <= 0:
        raise NoMagnitude(f"X = {X:.6g} bounds no numbers: give X > 0, at least max |x_i|")
    if not math.isfinite(X * X):
        raise NotFinite(f"X = {X:.6g} is too large: X squared is not a finite float64")


def numbers_of(x: Float[np.ndarray, "*batch seq"], t: int) -> Float[np.ndarray, "*batch seq"]:
    """A float64 copy of x with 0 at [SEP], whose entry carries no number.

    Raises `NoSegment` (also for an empty x) and `NotFinite`.
    """
    check_segment(x.shape[-1], t)
    numbers = np.array(x, dtype=np.float64)
    numbers[..., t - 1] = 0.0
    wrong = ~np.isfinite(numbers)
    if wrong.any():
        raise NotFinite(
            f"x holds {wrong.sum()} value(s) that are not finite, the first at position "
            f"{np.argwhere(wrong)[0][-1] + 1}: remove them"
        )
    return numbers


def check_causal(mask: Bool[np.ndarray, "query key"]) -> None:
    """No query sees a later key, and each sees one. Raises `NotCausal`, `Refused`."""
    later = np.argwhere(np.triu(mask, k=1))
    if len(later):
        query, key = later[0] + 1
        raise NotCausal(
            f"the mask lets query {query} see key {key} (and {len(later) - 1} more): "
            "give a lower-triangular mask, or none"
        )
    blind = np.flatnonzero(~mask.any(axis=1))
    if len(blind):
        raise Refused(f"the mask lets query {blind[0] + 1} see nothing: let it see itself")
