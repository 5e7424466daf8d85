"""Bytes that a method holds while it works on one matrix."""

from typing import NamedTuple


class Bytes(NamedTuple):
    """Bytes an entry of W (d_out d_in), of R (d_in²), of W Wᵀ (d_out²), of the smaller Gram
    matrix."""

    weight: int
    moment: int
    rows: int
    smaller: int = 0


WORKSPACE: dict[str, Bytes] = {
    "magnitude": Bytes(27, 2, 2),
    "wanda": Bytes(25, 3, 3),
    "rounding": Bytes(22, 5, 4),
    "sparsegpt": Bytes(0, 43, 12),
    "gptq": Bytes(0, 55, 9),
    "oats": Bytes(30, 6, 5),
    "oats-moment": Bytes(47, 35, 0),
    "sparse-only": Bytes(21, 43, 8),
    "low-rank": Bytes(28, 0, 0),
    "low-rank-scaled": Bytes(28, 0, 0),
    "low-rank-moment": Bytes(24, 39, 0),
    "zeroquant-v2": Bytes(36, 0, 0),
    "lqer": Bytes(34, 0, 4),
    "qera-approximate": Bytes(34, 0, 4),
    "loftq": Bytes(41, 0, 0),
    "qera": Bytes(48, 2, 0),
}
"""Growth of the resident size while one matrix is replaced and accounted for, operator included:
fitted at five shapes of 512 to 1,024 rows and columns. Bytes are the same on any machine, but for
products in bfloat16. `tests/experiments/planning/test_workspace.py` tries another shape."""


def workspace(name: str, d_out: int, d_in: int) -> int:
    """Bytes beside the weight and its statistic while `name` works on a matrix of this shape."""
    per = WORKSPACE[name]
    least = min(d_out, d_in)
    return (
        per.weight * d_out * d_in
        + per.moment * d_in**2
        + per.rows * d_out**2
        + per.smaller * least**2
    )
