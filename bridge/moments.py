"""Factors of a second moment R = E[x xᵀ] that may be singular: damped until it factors, aloud."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mech.errors import BadInput

Square = Float[Tensor, "d_in d_in"]

# The first damping tried after 0: the rounding of a float64 sum of d_in products is below it.
LEAST = 1e-10
# A moment whose rounding is larger than itself is no moment.
MOST = 1e3


class Factor(NamedTuple):
    """R' = V Vᵀ, V upper triangular, R' = R with live channels damped and dead ones decoupled.

    R'_jj = R_jj + damping · mean R_jj of the live channels; of a dead channel (R_jj = 0) R'_jj is
    that mean: it is independent of the others, and any positive number serves. `upper` is V and
    `moment` R', in float64. `note` says where more damping than asked for was needed, and is
    empty otherwise.
    """

    upper: Square
    moment: Square
    damping: float
    dead: Bool[Tensor, " d_in"]
    note: str

    @property
    def inverse_upper(self) -> Square:
        """U = V⁻¹, upper triangular, UᵀU = R'⁻¹: SparseGPT's and GPTQ's factor of the inverse.

        One triangular inverse; R'⁻¹ itself is never formed.
        """
        return torch.linalg.solve_triangular(
            self.upper, torch.eye(len(self.upper)).to(self.upper), upper=True
        )


def factor(moment: Square, damping: float = 0.01) -> Factor:
    """V of R + λ m I = V Vᵀ, m the mean of R_jj over live channels, λ = `damping` or more.

    λ is raised tenfold (from 0: to 1e-10, then tenfold) until the Cholesky factorisation
    succeeds; `Factor.note` says so. A silent identity in its place would turn SparseGPT into
    magnitude pruning. Where no channel is live the factor is that of the identity, and noted.

    `moment`: [d_in, d_in], symmetric, of any scale; only entries on and above the diagonal are
    read. Raises BadInput where it is not finite, where `damping` is negative or
    not finite, and where a damping of 1,000 does not help: then it is not positive semidefinite.
    """
    _check(moment, damping)
    moment = moment.detach().double()
    diagonal = moment.diagonal()
    dead = diagonal <= 0
    if bool(dead.all()):
        note = "no live channel: the identity stands for the second moment"
        identity = torch.eye(len(moment)).to(moment)
        return Factor(identity, identity, damping, dead, note)
    mean = diagonal[~dead].mean()
    # Scaled to a mean diagonal of one: squares of tiny or huge activations stay in range.
    unit = (moment / mean).masked_fill(dead[:, None] | dead, 0)
    unit.diagonal()[dead] = 1
    tried = damping
    while tried <= MOST:
        damped = unit + (tried * (~dead).to(unit)).diag()
        upper, failed = _reversed_cholesky(damped)
        if not failed:
            raised = f"damping raised from {damping:g} to {tried:g}: the second moment is singular"
            note = raised if tried > damping else ""
            return Factor(upper * mean.sqrt(), damped * mean, tried, dead, note)
        tried = max(10 * tried, LEAST)
    raise BadInput(
        f"a second moment does not factor even with a damping of {MOST:g}: it is not positive "
        "semidefinite; accumulate it in float64"
    )


def shrink(moment: Square, share: float) -> Square:
    """(1-s) R + s diag R: towards channels that are independent, with their own scales.

    Of fewer calibration tokens than channels R is singular; every s > 0 makes it positive
    definite on its live channels. Raises BadInput where s is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise BadInput(f"shrinkage {share}: it must be at least 0 and at most 1")
    shrunk = moment * (1 - share)
    shrunk.diagonal().copy_(moment.diagonal())
    return shrunk


def _reversed_cholesky(damped: Square) -> tuple[Square, bool]:
    """V upper triangular with V Vᵀ = `damped`: Cholesky from the last channel on.

    Reversing the order of the channels turns an upper triangular factor into a lower one.
    """
    lower, failed = torch.linalg.cholesky_ex(damped.flip(0, 1))
    return lower.flip(0, 1), bool(failed)


def _check(moment: Square, damping: float) -> None:
    if not bool(moment.isfinite().all()):
        raise BadInput("a second moment is not finite; try bfloat16 or float32")
    if not 0 <= damping < float("inf"):
        raise BadInput(f"damping {damping}: it must be finite and at least 0")
