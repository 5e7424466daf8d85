"""Costs of several kinds from a few measurements: none is negative."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np


def fitted(amounts: Sequence[Sequence[float]], measured: Sequence[float]) -> tuple[float, ...]:
    """c >= 0 with the least Σ_i ((a_i · c) / y_i - 1)²: errors count in parts of what was measured.

    `amounts`: a_i, a row a measurement, of few columns; `measured`: y_i > 0. Every subset of the
    columns is solved for and the best without a negative cost taken: that is the minimum.
    """
    y = np.asarray(measured, dtype=np.float64)
    rows = np.asarray(amounts, dtype=np.float64) / y[:, None]
    size = np.abs(rows).max(0)
    columns = [c for c in range(rows.shape[1]) if size[c] > 0]
    best, least = np.zeros(rows.shape[1]), float(len(y))
    for count in range(1, len(columns) + 1):
        for chosen in map(list, combinations(columns, count)):
            unit = rows[:, chosen] / size[chosen]
            found = np.linalg.lstsq(unit, np.ones(len(y)), rcond=None)[0]
            error = float(np.square(unit @ found - 1).sum())
            if (found >= 0).all() and error < least - 1e-12:
                best = np.zeros(rows.shape[1])
                best[chosen], least = found / size[chosen], error
    return tuple(float(cost) for cost in best)
