"""Whole numbers that sum to a total: densities as allowances."""

from collections.abc import Mapping

import numpy as np

from mech.errors import BadInput

LEAST, MOST = 0.02, 1.0  # a linear keeps at least this share, and at most all


def apportion(
    densities: Mapping[str, float], parameters: Mapping[str, int], total: int
) -> dict[str, int]:
    """a_i with Σ a_i = total exactly and |a_i - n_i clip(d_i + s)| < 1, one shift s for all.

    d_i: `densities`, of which only the differences matter; n_i: `parameters`; clip: to
    [LEAST, MOST]. s is where the sum fits (the sum rises with s); what rounding down leaves goes
    to the largest remainders, of equal ones to the first. Raises BadInput where the total is
    outside what the clip allows, or a density is not finite.
    """
    names = list(parameters)
    wanted = np.array([densities[name] for name in names], dtype=np.float64)
    size = np.array([parameters[name] for name in names], dtype=np.float64)
    if not np.isfinite(wanted).all():
        raise BadInput("a density is not finite")
    least = int(np.ceil(LEAST * size).sum())
    if not least <= total <= int(size.sum()):
        raise BadInput(
            f"{total} parameters to keep: {len(names)} linears keep at least {least} and at most "
            f"{int(size.sum())}"
        )
    exact = size * np.clip(wanted + _shift(wanted, size, total), LEAST, MOST)
    whole = np.floor(exact)
    left = total - int(whole.sum())
    # Bisection leaves the sum a little off: the remainders take it up in either direction.
    order = np.argsort(whole - exact, kind="stable")
    while left:
        step = 1 if left > 0 else -1
        for index in order if step > 0 else order[::-1]:
            if left and 0 < whole[index] + step <= size[index]:
                whole[index] += step
                left -= step
    return {name: int(count) for name, count in zip(names, whole, strict=True)}


def uniform(parameters: Mapping[str, int], total: int) -> dict[str, int]:
    """The same density everywhere, to one parameter: `apportion` of equal densities.

    Examples:
        >>> uniform({"q": 100, "up": 300}, 200)
        {'q': 50, 'up': 150}
    """
    return apportion(dict.fromkeys(parameters, 0.5), parameters, total)


def spread_about(
    scores: Mapping[str, float], parameters: Mapping[str, int], total: int, spread: float
) -> dict[str, int]:
    """Allowances of densities total / Σ n + spread (2 score - 1) + s, scores scaled to [0, 1].

    The lowest and the highest score are 2 `spread` apart in density, as in OWL. Equal scores
    give the uniform budget. Raises BadInput where `spread` is negative, and as `apportion` does.
    """
    if not 0 <= spread < 1:
        raise BadInput(f"spread {spread}: at least 0 and below 1")
    low, high = min(scores.values()), max(scores.values())
    size = high - low
    scaled = {name: (score - low) / size if size > 0 else 0.5 for name, score in scores.items()}
    mean = total / sum(parameters.values())
    densities = {name: mean + spread * (2 * score - 1) for name, score in scaled.items()}
    return apportion(densities, parameters, total)


def _shift(wanted: np.ndarray, size: np.ndarray, total: int) -> float:
    low, high = -float(wanted.max()), 1 - float(wanted.min())
    for _ in range(80):
        middle = (low + high) / 2
        if (size * np.clip(wanted + middle, LEAST, MOST)).sum() < total:
            low = middle
        else:
            high = middle
    return high
