"""MSE*(s) = min over d of E[(f - m)^2] at the theorem's weights: what an embedding scale can reach.

Measured on weighted sequences (`tails`) with the exact residual (`residuals`). d is found on a part
of the sequences; at the minimum the loss does not depend on d to first order.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy.errors import Refused
from toy.laws import linear, one_large
from toy.laws.residuals import Crowds, crowds, squared_errors
from toy.laws.search import least
from toy.laws.tails import TAILS, draw

BLOCKS = 100
"""Groups of sequences that a bootstrap draws: enough for its intervals, few enough to be quick."""
SEARCHED = 8_000
"""Sequences on which d is found."""


class Frontier(NamedTuple):
    """One tail's curve, and the same with d = 1; predictions need no fit."""

    tail: str
    s_tag: Float[np.ndarray, " scale"]
    d: Float[np.ndarray, " scale"]  # the best one
    loss: Float[np.ndarray, " scale"]
    low: Float[np.ndarray, " scale"]  # 95%
    high: Float[np.ndarray, " scale"]
    effective: Float[np.ndarray, " scale"]  # (sum e)^2 / sum e^2 of the weighted squared errors
    predicted: Float[np.ndarray, " scale"]
    predicted_d: Float[np.ndarray, " scale"]
    slope: Float[np.ndarray, " step"]  # d log MSE / ds between neighbours
    slope_low: Float[np.ndarray, " step"]
    slope_high: Float[np.ndarray, " step"]
    predicted_slope: Float[np.ndarray, " step"]
    unit_loss: Float[np.ndarray, " scale"]  # at d = 1
    unit_slope: Float[np.ndarray, " step"]
    plain_loss: Float[np.ndarray, " scale"]  # plain Monte Carlo of as many sequences: the control
    plain_effective: Float[np.ndarray, " scale"]  # how sure it believes it is
    others: dict[str, float]  # at the middle scale: the loss at another w or b, over `loss`
    variance: float  # of the target
    sequences: int


def effective(values: Float[np.ndarray, "case scale"]) -> Float[np.ndarray, " scale"]:
    """(sum v)^2 / sum v^2: how many equal terms would carry the mean as surely."""
    return values.sum(axis=0) ** 2 / (values**2).sum(axis=0)


def best_d(seen: Crowds, s_tag: float, w: float = 1.0) -> float:
    """argmin over d of the loss on these sequences: log Q is searched, d = Q / (ws - 1) / w(s - 1).

    Needs w s > 1: the last token's tag w - 1 + w (s - 1) a_T has to be positive where a_T is 1.
    """
    unit = (w * s_tag - 1) * w * (s_tag - 1)
    found = least(
        lambda log_gain: float(
            squared_errors(seen, s_tag=s_tag, d=np.exp(log_gain) / unit, w=w).mean()
        ),
        np.log(0.5),
        np.log(4 * s_tag),
    )
    return float(np.exp(found.at)) / unit


def with_others(seen: Crowds, s_tag: float) -> dict[str, float]:
    """The loss with another w (d at its best again) or another b, over that at w = 1, b = 0."""
    d = best_d(seen, s_tag)
    base = squared_errors(seen, s_tag=s_tag, d=d).mean()
    found = {
        f"w = {w:g}": squared_errors(seen, s_tag=s_tag, d=best_d(seen, s_tag, w), w=w).mean()
        for w in (0.3, 0.7, 1.5)
    }
    found["b = 0.02"] = np.mean(
        [squared_errors(seen, s_tag=s_tag, d=d, b=b).mean() for b in (-0.02, 0.02)]
    )
    return {name: float(loss / base) for name, loss in found.items()}


def blocks(values: Float[np.ndarray, "case scale"]) -> Float[np.ndarray, "block scale"]:
    """Means of `BLOCKS` groups of as many sequences; what is left over is dropped."""
    size = len(values) // BLOCKS
    return values[: size * BLOCKS].reshape(BLOCKS, size, -1).mean(axis=1)


def resampled(
    rng: np.random.Generator, values: Float[np.ndarray, "block scale"], resamples: int = 2000
) -> Float[np.ndarray, "resample scale"]:
    """Means over blocks drawn with replacement."""
    counts = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), resamples)
    return counts @ values / len(values)


def slopes(
    s_tag: Float[np.ndarray, " scale"], loss: Float[np.ndarray, "*batch scale"]
) -> Float[np.ndarray, "*batch step"]:
    """Delta log loss / Delta s between neighbouring scales."""
    return np.diff(np.log(loss), axis=-1) / np.diff(s_tag)


def _window(tail: str, s_tag: Float[np.ndarray, " scale"]) -> tuple[float, float] | None:
    """The sizes of number that cause the loss: about sqrt(s - log Q), and beyond."""
    if np.isfinite(TAILS[tail].edge):
        return None
    return max(float(np.sqrt(s_tag.min())) - 1.2, 0.0), float(np.sqrt(s_tag.max())) + 2.0


def frontier(
    tail: str,
    s_tag: Float[np.ndarray, " scale"],
    *,
    sequences: int = 20_000,
    seed: int = 0,
    shortest: int = 16,
    longest: int = 32,
) -> Frontier:
    """Measure and predict one tail's curve.

    Raises `Refused` for fewer than `BLOCKS` sequences or two scales, and as `draw`.
    """
    if sequences < BLOCKS or len(s_tag) < 2:
        raise Refused(f"{sequences} sequences at {len(s_tag)} scales: give {BLOCKS} and 2 or more")
    rng = np.random.default_rng(seed)
    window = _window(tail, s_tag)
    seen = crowds(draw(rng, tail, sequences, window=window, shortest=shortest, longest=longest))
    plain = crowds(draw(rng, tail, sequences, shortest=shortest, longest=longest))
    few = Crowds(*(field[:SEARCHED] for field in seen))
    d = np.array([best_d(few, float(s)) for s in s_tag])

    def losses(seen: Crowds, d: Float[np.ndarray, " scale"]) -> Float[np.ndarray, "case scale"]:
        pairs = zip(s_tag.tolist(), d.tolist(), strict=True)
        return np.stack([squared_errors(seen, s_tag=s, d=k) for s, k in pairs], axis=1)

    values, unit = losses(seen, d), losses(seen, np.ones_like(d)).mean(axis=0)
    ordinary = losses(plain, d)
    draws = resampled(rng, blocks(values))
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    slope_low, slope_high = np.quantile(slopes(s_tag, draws), [0.025, 0.975], axis=0)
    foreseen = _predict(tail, s_tag, plain, shortest, longest)
    predicted = np.array([p.loss for p in foreseen])
    return Frontier(
        tail=tail,
        s_tag=s_tag,
        d=d,
        loss=values.mean(axis=0),
        low=low,
        high=high,
        effective=effective(values),
        predicted=predicted,
        predicted_d=np.array([p.gain for p in foreseen]) / (s_tag - 1) ** 2,
        slope=slopes(s_tag, values.mean(axis=0)),
        slope_low=slope_low,
        slope_high=slope_high,
        predicted_slope=slopes(s_tag, predicted),
        unit_loss=unit,
        unit_slope=slopes(s_tag, unit),
        plain_loss=ordinary.mean(axis=0),
        plain_effective=effective(ordinary),
        others=with_others(few, float(s_tag[len(s_tag) // 2])),
        variance=float((seen.weight * seen.mean**2).mean()),
        sequences=sequences,
    )


def _predict(
    tail: str, s_tag: Float[np.ndarray, " scale"], seen: Crowds, shortest: int, longest: int
) -> list[one_large.Predicted]:
    if np.isfinite(TAILS[tail].edge):
        of = linear.moments(seen)
        return [linear.frontier(of, float(s)) for s in s_tag]
    return [one_large.frontier(tail, float(s), shortest=shortest, longest=longest) for s in s_tag]
