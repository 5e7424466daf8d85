"""C6: with a little s_num and a read-out that sees tags, W_V1 = diag(0, -w) needs no sink either.

    s_num = kappa -> 0,  e^g = kappa^{-2},  w = kappa^2,  V = D / n,  D = T - 1 + e^g,  p = e^g / D,
    W_V1 = diag(0, -w),  M = [[0, 0], [0, M_22]],  W_V2 = [V, v]^T,  s = s_tag -> 0 from below.

Row t of layer 1 is a softmax of scores kappa x_k + s and kappa^2 + s^2, so that with
E = e^{s^2 + kappa^2 - s}, A = E / (E + t - 1) and N = -(E + t - 1)^2 / (n E kappa p)

    a_t = E / (E + sum_{k<t} e^{kappa x_k}) = A + sum_{k<t} x_k / (n N p) + O(kappa^2).

[SEP]'s own tag sees the sum of the numbers before it. Read with v = N / (w (1-s)) it takes that
sum from that of all numbers, which layer 2 adds with weights 1/D each. f(0) vanishes to leading
order where 1 - s = (1 - w) / (p (1 + w (V kappa / N - A))). Then |f - m| = O(kappa log(1/kappa))
uniformly on [-X, X]^T, while A1[i, t] <= 1 / (1 + e^{1 - kappa^2 / 4}) for every x.
"""

import numpy as np

from toy.errors import Refused
from toy.inputs import check_numbers, check_segment
from toy.transformer import Weights

SWEEPS = 60
"""s enters its own equation through E, with a factor of order w <= 0.01 a sweep."""


def _row_t(T: int, t: int, kappa: float, s: float, p: float) -> tuple[float, float]:
    """A and N."""
    E = np.exp(s * s + kappa**2 - s)
    return E / (E + t - 1), -((E + t - 1) ** 2) / ((T - t) * E * kappa * p)


def modulation(T: int, t: int, kappa: float) -> Weights:
    """C6's weights at s_num = kappa, for [SEP] at t of T; float64.

    |W_V2| is of order kappa^{-3}, so that float64 is exact to about 1e-16 kappa^{-3}. Raises
    `NoSegment`, `NotFinite`, and `Refused` outside 1e-4 <= kappa <= 0.1 and for t = 1, where there
    is nothing to subtract.
    """
    check_segment(T, t)
    check_numbers(kappa=kappa)
    if t < 2 or not 1e-4 <= kappa <= 0.1:
        raise Refused(f"t = {t}, kappa = {kappa:.6g}: give t >= 2 and kappa in [1e-4, 0.1]")
    n, g, w = T - t, -2 * np.log(kappa), kappa**2
    D = T - 1 + np.exp(g)
    p, V = np.exp(g) / D, D / n
    s = 1 - 1 / p
    for _ in range(SWEEPS):
        own, N = _row_t(T, t, kappa, s, p)
        s = 1 - (1 - w) / (p * (1 + w * (V * kappa / N - own)))
    own, N = _row_t(T, t, kappa, s, p)
    tag_T = w - 1 + w * (s - 1) / (1 + (T - 1) * np.exp(1 - s))
    M_22 = g / ((1 - s) * (1 - w * own) * tag_T)
    return Weights(
        s_num=np.asarray(kappa, dtype=np.float64),
        s_tag=np.asarray(s, dtype=np.float64),
        W_V1=np.diag([0.0, -w]),
        W_Q2=np.diag([0.0, M_22]),
        W_K2=np.eye(2),
        W_V2=np.array([[V], [N / (w * (1 - s))]]),
    )
