"""The worst input that a search finds: what a bound over all inputs is compared with."""

import numpy as np
from jaxtyping import Float

from toy.theorem import residual


def structured(
    rng: np.random.Generator, T: int, t: int, X: float, starts: int
) -> Float[np.ndarray, "starts seq"]:
    """Inputs that make one term of the bound large, then random corners and interior points."""
    i = np.arange(1, T + 1)
    late = i > (T + t + 1) // 2
    shapes = [
        np.where(i <= t, X, -X),  # what leaks is as far from the mean as can be
        np.full(T, X),  # every row is crowded
        np.where(i <= t, X, np.where(late, X, 0.0)),  # half of the rows are crowded
        np.where(late, X, -X),
        np.where(i <= t, X, np.where(i == T, -X, X)),
    ]
    shapes += [rng.choice([-X, X], T) for _ in range((starts - len(shapes)) // 2)]
    shapes += [rng.uniform(-X, X, T) for _ in range(max(0, starts - len(shapes)))]
    return np.stack(shapes[:starts])


def worst_inputs(
    T: int,
    t: int,
    X: float,
    s_tag: float,
    b: float = 0.0,
    d: float = 1.0,
    *,
    starts: int = 10,
    sweeps: int = 2,
    seed: int = 0,
) -> Float[np.ndarray, "starts seq"]:
    """Coordinate ascent of |f - m| over {-X, -X/2, 0, X/2, X}, from `structured` starts.

    Raises as `residual`.
    """
    rng = np.random.default_rng(seed)
    x = structured(rng, T, t, X, starts)
    values = X * np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    for _ in range(sweeps):
        for i in rng.permutation(np.delete(np.arange(T), t - 1)):
            tried = np.repeat(x[:, None], len(values) + 1, axis=1)
            tried[:, 1:, i] = values
            best = np.abs(residual(tried, t, s_tag=s_tag, b=b, d=d)).argmax(axis=1)
            x = tried[np.arange(starts), best]
    return x
