"""Both bounds on |f - m| against inputs: random ones, and the worst that a search finds.

A setting is drawn as follows, and the distribution was fixed before any bound was compared on it:
T uniform on 2..32 (2..16 where a search follows), t uniform on 1..T-1, X uniform on [0.2, 3], b
normal or 0 with even odds, log d normal; s above the least scale with a guarantee by U(0.01, 2) or
by U(0, X^2 + 20), with even odds. Tightness is the bound over the largest error found at a setting,
over the settings whose Theorem B is below X: a bound above that says next to nothing.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy import bounds, position, theorem
from toy.adversary import worst_inputs

LONGEST, SEARCHED = 32, 16
PER_SETTING, PER_SEARCH = 20, 10
QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)
SMALLEST = 1e-300
"""Below it exponentials have lost digits, and an error is as good as 0."""


class Setting(NamedTuple):
    """A sequence shape and weights with a positive guaranteed query."""

    T: int
    t: int
    X: float
    s_tag: float
    b: float
    d: float

    @property
    def at(self) -> dict[str, float]:
        """The weights, as the arguments of the theorem."""
        return {"s_tag": self.s_tag, "b": self.b, "d": self.d}


class BoundCheck(NamedTuple):
    """Theorem B and the sharper bound on random and on adversarial inputs."""

    violations: int  # of either
    random_inputs: int
    adversarial_inputs: int
    closest: float  # the largest |f - m| over the sharper bound that was met
    quantiles: tuple[float, ...]
    tightness: Float[np.ndarray, " quantile"]  # of Theorem B / worst |f - m| found
    sharper: Float[np.ndarray, " quantile"]  # of the sharper bound / worst |f - m| found
    settings: int  # behind those quantiles
    seed: int


class _Tried(NamedTuple):
    bounds: Float[np.ndarray, " bound"]  # Theorem B, the sharper one
    ratios: Float[np.ndarray, "bound case"]  # |f - m| / bound
    violations: int
    worst: float  # the largest |f - m|


def draw(rng: np.random.Generator, longest: int = LONGEST) -> Setting:
    """One setting, as the module says."""
    T = int(rng.integers(2, longest + 1))
    t = int(rng.integers(1, T))
    X = float(rng.uniform(0.2, 3))
    b, d = float(rng.normal() * rng.integers(0, 2)), float(np.exp(rng.normal()))
    least = bounds.smallest_s_tag(T, t, X, b=b, d=d)
    above = rng.uniform(0.01, 2) if rng.integers(2) else rng.uniform(0, X * X + 20)
    return Setting(T, t, X, float(least + above), b, d)


def _try(at: Setting, x: Float[np.ndarray, "case seq"]) -> _Tried:
    shape = at.T, at.t, at.X
    both = np.array([f(*shape, **at.at) for f in (bounds.error_bound, position.position_bound)])
    errors = np.abs(theorem.residual(x, at.t, **at.at))
    ratios = np.where(errors > SMALLEST, errors / np.maximum(both, SMALLEST)[:, None], 0.0)
    room = bounds.relative_rounding(at.X, s_tag=at.s_tag, b=at.b)
    return _Tried(both, ratios, int((ratios > 1 + room).any(axis=0).sum()), float(errors.max()))


def check_bound(
    n: int = 10_000,
    adversarial: int = 5_000,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> BoundCheck:
    """Both bounds on n random inputs, 20 a setting, and on the worst of a search, 10 a setting.

    A violation is an error above a bound by more than float64 can account for; `advance` is
    called with the number of inputs done.
    """
    rng = np.random.default_rng(seed)
    violations, closest, tight, done = 0, 0.0, [], 0
    groups = [(False, size) for size in _groups(n, PER_SETTING)]
    groups += [(True, size) for size in _groups(adversarial, PER_SEARCH)]
    for search, size in groups:
        at = draw(rng, SEARCHED if search else LONGEST)
        if search:
            x = worst_inputs(*at, starts=size, seed=int(rng.integers(2**32)))
        else:
            x = rng.uniform(-at.X, at.X, (size, at.T))
        tried = _try(at, x)
        violations += tried.violations
        closest = max(closest, float(tried.ratios.max()))
        if search and tried.worst > SMALLEST and tried.bounds[0] < at.X:
            tight.append(tried.bounds / tried.worst)
        done += size
        if advance is not None:
            advance(done)
    spread = (
        np.quantile(tight, QUANTILES, axis=0).T if tight else np.full((2, len(QUANTILES)), np.nan)
    )
    return BoundCheck(
        violations, n, adversarial, closest, QUANTILES, *spread, settings=len(tight), seed=seed
    )


def _groups(total: int, size: int) -> list[int]:
    """`total` in parts of `size`, the last one smaller."""
    return [min(size, total - start) for start in range(0, total, size)]
