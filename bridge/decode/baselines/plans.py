"""The same setting everywhere: TEAL, R-Sparse's uniform recipe, and either of its terms alone."""

from collections.abc import Callable, Iterable

from bridge.decode.plan import Plan, Setting


def teal(names: Iterable[str], sparsity: float) -> Plan:
    """x_j is read where |x_j| > t, t the s-quantile of |x|: TEAL's uniform recipe.

    Liu et al. 2024, arXiv:2408.14690. Its thresholds as published are in `teal.py`.
    """
    return _everywhere(names, Setting(sparsity))


def sparse(names: Iterable[str], sparsity: float) -> Plan:
    """x_j is read where |x_j| ‖W_:j‖₂ > t: R-Sparse's sparse term alone, by its release's rule.

    Zhang et al. 2025, arXiv:2504.19449; the paper's own rule is |x_j|, which is `teal`.
    """
    return _everywhere(names, Setting(sparsity, rule="column"))


def low_rank(names: Iterable[str], sparsity: float) -> Plan:
    """W is read as its truncated SVD of rank ⌊(1 - s) d_out d_in / (d_out + d_in)⌋ alone.

    What the rounding of the rank leaves is less than one rank, and goes to channels, so that as
    much is read as by the others.
    """
    return _everywhere(names, Setting(sparsity, alpha=0.0))


def r_sparse(names: Iterable[str], sparsity: float) -> Plan:
    """95% of what is read is channels, 5% the truncated SVD: R-Sparse's uniform recipe (paper)."""
    return _everywhere(names, Setting(sparsity, alpha=0.95))


def r_sparse_moment(names: Iterable[str], sparsity: float) -> Plan:
    """The same with the stand-in of least output error on what is left out."""
    return _everywhere(names, Setting(sparsity, alpha=0.95, factors="moment"))


UNIFORM: dict[str, Callable[[Iterable[str], float], Plan]] = {
    "teal": teal,
    "sparse": sparse,
    "low-rank": low_rank,
    "r-sparse": r_sparse,
    "r-sparse-moment": r_sparse_moment,
}
"""Recipes that need nothing but names and a sparsity."""


def _everywhere(names: Iterable[str], setting: Setting) -> Plan:
    return dict.fromkeys(names, setting)
