"""Sink-specialised heads: those that keep a sink over prompts, P(α_first > ε) ≥ LEAST.

The score is (1/T) Σ_t A[t, 0] of Sok et al. 2026, "Garbage Attention in Large Language Models",
arXiv:2601.06787, which is α of equation 1 at the first token. That paper ranks heads by it; here
a head is in the set when it passes ε in at least LEAST of the prompts, with Wilson's interval on
that share (Wilson, 1927), and the set's stability is compared with heads that are all alike.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mech.errors import BadInput

LEAST = 0.9
NORMAL_95 = 1.959963984540054


class Kept(NamedTuple):
    """In what share of the prompts each head has a sink; the 95 % interval of that share."""

    share: Float[np.ndarray, "layer head"]
    low: Float[np.ndarray, "layer head"]
    high: Float[np.ndarray, "layer head"]


class Stability(NamedTuple):
    """|A ∩ B| / |A ∪ B| of the sets that two halves of the prompts give: mean over random halves.

    control, control_high: mean and 97.5 % quantile of the same when, in each prompt, the sinks are
    dealt to the heads at random. NaN where no half has a set.
    """

    agreement: float
    control: float
    control_high: float


def wilson(
    hits: Int[np.ndarray, "*axes"], n: int
) -> tuple[Float[np.ndarray, "*axes"], Float[np.ndarray, "*axes"]]:
    """The 95 % interval of a share of hits in n trials: it stays in [0, 1], also at 0 and n."""
    if n < 1:
        raise BadInput("a share of no prompts has no interval: give at least one")
    square = NORMAL_95**2
    share = hits / n
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = NORMAL_95 / (1 + square / n) * np.sqrt(share * (1 - share) / n + square / (4 * n * n))
    # Of arrays without axes numpy makes scalars.
    return np.asarray(np.maximum(centre - half, 0.0)), np.asarray(np.minimum(centre + half, 1.0))


def kept(has: Bool[np.ndarray, "prompt layer head"]) -> Kept:
    """Shares of the prompts in which each head has the sink, with Wilson's intervals."""
    hits = has.sum(axis=0)
    return Kept(hits / len(has), *wilson(hits, len(has)))


def stability(
    has: Bool[np.ndarray, "prompt layer head"],
    *,
    least: float = LEAST,
    splits: int = 100,
    seed: int = 0,
) -> Stability:
    """Do two halves of the prompts name the same heads? Needs at least four prompts.

    The control deals each prompt's sinks to the heads at random, so it keeps how many there are
    and forgets whose: a set that is no better has nothing to do with the heads.
    """
    prompts = len(has)
    if prompts < 4:
        raise BadInput(f"{prompts} prompts have no two halves to compare: give at least 4")
    flat = has.reshape(prompts, -1)
    rng = np.random.default_rng(seed)
    own, dealt = [], []
    for _ in range(splits):
        order = rng.permutation(prompts)
        own.append(_agreement(flat[order], least))
        dealt.append(_agreement(rng.permuted(flat, axis=1), least))
    high = float(np.nanquantile(dealt, 0.975)) if np.isfinite(dealt).any() else float("nan")
    return Stability(_mean(own), _mean(dealt), high)


def _agreement(flat: np.ndarray, least: float) -> float:
    middle = len(flat) // 2
    a, b = flat[:middle].mean(axis=0) >= least, flat[middle:].mean(axis=0) >= least
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else float("nan")


def _mean(values: list[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
