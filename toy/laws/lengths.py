"""Length: what two numbers of a trained seed, s_tag and layer 2's gap, say about other lengths.

A number before [SEP] has the weight e^{-gap} of one after it. With (t - 1) of them the leak is
p_pre = (t - 1) e^{-gap} / (n + (t - 1) e^{-gap}) and f - m = p_pre (v - m), v their mean, so that

    E[(f - m)^2 | t, n] = p_pre^2 (1 / (t - 1) + 1 / n)

for independent numbers of variance 1, over the target's E[1 / n]. It is worst where few numbers
follow many, and a fixed gap serves up to T of about e^{gap}. One large number instead costs about
x^2 P(x) of a target's variance at every length (`one_large`, at Q = gap): a floor, flat in T.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from toy.laws import one_large
from toy.laws.measure import look, target, unexplained
from toy.laws.tails import draw
from toy.transformer import Weights


class Lengths(NamedTuple):
    """Unexplained variance at T tokens, by seed; the laws know only each seed's s_tag and gap."""

    T: Int[np.ndarray, " length"]
    gap: Float[np.ndarray, " seed"]  # median over sequences of the lengths trained on
    measured: Float[np.ndarray, "seed length"]
    leak: Float[np.ndarray, "seed length"]  # measured, of p_pre (v - m) alone
    leak_law: Float[np.ndarray, "seed length"]
    law: Float[np.ndarray, "seed length"]  # leak and one large number
    sequences: int


def leak_cost(
    t: Int[np.ndarray, " case"], n: Int[np.ndarray, " case"], gap: float
) -> Float[np.ndarray, " case"]:
    """E[(f - m)^2 | t, n] = p_pre^2 (1 / (t - 1) + 1 / n); 0 at t = 1."""
    before = (t - 1) * np.exp(-gap)
    p = before / (n + before)
    return p**2 * (1 / np.maximum(t - 1, 1) + 1 / n)


def leak_law(T: int, gap: float) -> float:
    """E over t uniform on 1..T-1 of E[(f - m)^2 | t, n] / E[1 / n]."""
    t = np.arange(1, T)
    return float(leak_cost(t, T - t, gap).mean() / (1 / t).mean())


def law(T: int, gap: float, s_tag: float, tail: str) -> float:
    """`one_large.loss` at this length over the target's variance E[1 / n]."""
    of = one_large.loss(tail, s_tag=s_tag, gain=gap, shortest=T, longest=T)
    return of / float((1 / np.arange(1, T)).mean())


def lengths(
    weights: Weights,
    T: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256),
    *,
    tail: str = "gaussian",
    trained_on: tuple[int, int] = (16, 32),
    window: tuple[float, float] = (2.0, 6.0),
    sequences: int = 1024,
    seed: int = 0,
) -> Lengths:
    """Measure seeds (leading axis of `weights`) on every length; as `draw`, numbers from `tail`.

    Raises `Refused`, `NoSegment` as `draw`, and as `one_large.loss`.
    """
    rng = np.random.default_rng(seed)
    short, long = trained_on
    known = look(weights, draw(rng, tail, sequences, shortest=short, longest=long)).gap
    known = known[:, ~np.isnan(known).any(axis=0)]  # t = 1 has nothing before it
    measured, leak = [], []
    for length in T:
        drawn = draw(rng, tail, sequences, window=window, shortest=length, longest=length)
        seen, m = look(weights, drawn), target(drawn)
        measured.append(unexplained(seen.output, drawn))
        leak.append(unexplained(m + seen.leak, drawn))
    gap = np.median(known, axis=1)
    pairs = list(zip(gap.tolist(), np.asarray(weights.s_tag).tolist(), strict=True))
    return Lengths(
        T=np.array(T),
        gap=gap,
        measured=np.stack(measured, axis=1),
        leak=np.stack(leak, axis=1),
        leak_law=np.array([[leak_law(length, g) for length in T] for g, _ in pairs]),
        law=np.array([[law(length, g, s, tail) for length in T] for g, s in pairs]),
        sequences=sequences,
    )
