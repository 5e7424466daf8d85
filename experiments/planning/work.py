"""Operations that a method needs for one matrix, by its shape: what its time grows with."""

from collections.abc import Callable
from typing import Any

from bridge.planned import spending
from bridge.splitting import WarmSubspace

EIGEN = 9.0
"""n³ of a symmetric eigendecomposition with all vectors (LAPACK's count for syevd)."""
SINGULAR = 20.0
"""m n min(m, n) of a full SVD with thin factors."""

Work = Callable[[Any, int, int], float]


def work(name: str, method: Any, d_out: int, d_in: int) -> float:
    """Floating-point operations of products and factorisations; entry-wise work is not counted.

    The count is a law of growth: what an operation costs is measured (`experiments.planning`).
    """
    return _WORK[name](method, d_out, d_in)


def _none(method: Any, m: int, n: int) -> float:
    return 0.0


def _error(m: int, n: int) -> float:
    """The output error that is reported of every method that has seen R: two products with it."""
    return 4.0 * m * n * n


def _factor(n: int) -> float:
    return n**3 / 3


def _gram(m: int, n: int) -> float:
    """The smaller Gram matrix and its eigenvectors."""
    k = min(m, n)
    return 2.0 * m * n * k + EIGEN * k**3


def _regressed(m: int, n: int) -> float:
    return 2.0 * m * n * n + _gram(m, n)


def _sparsegpt(method: Any, m: int, n: int) -> float:
    return _factor(n) + m * n * n + _error(m, n)


def _gptq(method: Any, m: int, n: int) -> float:
    return 2 * _factor(n) + m * n * n + _error(m, n)


def _oats(method: Any, m: int, n: int) -> float:
    rank = spending(method, m, n, 32).inner
    truncation = method.truncation
    if not isinstance(truncation, WarmSubspace):
        return method.iterations * SINGULAR * m * n * min(m, n)
    return (3 * truncation.steps(method.iterations) + 5) * 2.0 * m * n * rank


def _oats_moment(method: Any, m: int, n: int) -> float:
    masks = method.masks * (m * n * n + _regressed(m, n) + 2 * m * n * n)
    rounds = method.rounds * (2.0 * (method.steps + 1) * m * n * n + _regressed(m, n))
    return _oats(method, m, n) + _factor(n) + masks + rounds + _error(m, n)


def _sparse_only(method: Any, m: int, n: int) -> float:
    # The mask and the refit once, with a low-rank term of rank 0 that is computed all the same.
    once = 3.0 * m * n * n + 2 * _regressed(m, n)
    return _factor(n) + once + 2.0 * (method.steps + 1) * m * n * n + _error(m, n)


def _svd(method: Any, m: int, n: int) -> float:
    return SINGULAR * m * n * min(m, n)


def _low_rank_moment(method: Any, m: int, n: int) -> float:
    return _factor(n) + _regressed(m, n) + _error(m, n)


def _remainder(method: Any, m: int, n: int) -> float:
    return _gram(m, n)


def _loftq(method: Any, m: int, n: int) -> float:
    return method.iterations * _gram(m, n)


def _qera(method: Any, m: int, n: int) -> float:
    root = _factor(n) if m > n else 0.0
    return root + 2.0 * m * n * n + _gram(m, n) + _error(m, n)


_WORK: dict[str, Work] = {
    "magnitude": _none,
    "wanda": _none,
    "rounding": _none,
    "sparsegpt": _sparsegpt,
    "gptq": _gptq,
    "oats": _oats,
    "oats-moment": _oats_moment,
    "sparse-only": _sparse_only,
    "low-rank": _svd,
    "low-rank-scaled": _svd,
    "low-rank-moment": _low_rank_moment,
    "zeroquant-v2": _remainder,
    "lqer": _remainder,
    "qera-approximate": _remainder,
    "loftq": _loftq,
    "qera": _qera,
}
