"""A large matrix with a real spectrum, and the definition's error on it without its cost.

W = U diag(σ) Vᵀ: σ are the singular values of a real weight, interpolated over their rank divided
by their number; U and V are Haar. D is drawn from the real √E[x²], with replacement. What a
random basis has not is the alignment of W's singular vectors with the outlier channels; the
large directions of W D come from D, as they mostly do in the model.
"""

import time

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bridge.budget import sparse_low_rank
from bridge.methods.oats import scale
from bridge.statistics import Moment
from ctr_kernels.hard_threshold import hard_threshold
from experiments.both import BothWays
from experiments.oats import Matrix, Run
from experiments.progress import Advance

# Directions beyond the rank, and power steps an iteration: residuals of 1e-6 of a Ritz value.
SPARE, POWER = 64, 3


def large(method: BothWays, side: int, timed: int, advance: Advance) -> Matrix:
    """`side` × `side`, made of the last matrix that `method` was given; fast, and extrapolated."""
    (weight, seen), generator = method.last[0], torch.Generator().manual_seed(0)
    wide, moment = like(weight, seen, side, generator)
    budget = sparse_low_rank(
        side, side, compression=method.oats.compression, rank_ratio=method.oats.rank_ratio
    )
    columns = scale(moment).float()
    seconds = _svd_seconds(wide * columns, timed)
    fast = [method.fast(wide, moment, a)[1] for a in method.accelerations]
    seconds = (seconds + _svd_seconds(wide * columns, timed)) / (2 * timed)
    lost = converged(
        wide * columns, budget.rank, budget.kept_per_row, method.oats.iterations, advance
    ).double()
    scaled = float(lost.norm() / (wide * columns).double().norm())
    plain = float((lost / columns).norm() / wide.double().norm())
    definition = Run(scaled, plain, seconds * method.oats.iterations)
    return Matrix("real spectrum", (side, side), definition, None, fast)


def like(
    weight: Float[Tensor, "d_out d_in"], seen: Moment, side: int, generator: torch.Generator
) -> tuple[Float[Tensor, "side side"], Moment]:
    """(W, its inputs' second moments), of `side` rows and columns."""
    sigma = torch.linalg.svdvals(weight.double()).cpu().numpy()
    places = np.linspace(0, 1, side), np.linspace(0, 1, len(sigma))
    spectrum = torch.from_numpy(np.interp(places[0], places[1], sigma)).float()
    left, right = (
        torch.linalg.qr(torch.randn(side, side, generator=generator))[0] for _ in range(2)
    )
    drawn = torch.randint(len(seen.total), (side,), generator=generator)
    return (left * spectrum) @ right.mT, Moment(seen.total[drawn], seen.tokens)


def converged(
    target: Float[Tensor, "d_out d_in"], rank: int, keep: int, iterations: int, advance: Advance
) -> Float[Tensor, "d_out d_in"]:
    """A - L - S after `iterations` of the definition, SVDᵣ by subspaces iterated to convergence.

    The subspace has SPARE directions beyond the rank and starts where the iteration before
    left it; L is its Ritz truncation.
    """
    generator = torch.Generator().manual_seed(1)
    drawn = min(rank + SPARE, *target.shape)
    basis = torch.randn(target.shape[1], drawn, generator=generator).to(target)
    sparse, residual = torch.zeros_like(target), target
    for n in range(iterations):
        matrix = target - sparse
        for _ in range(5 * POWER if n == 0 else POWER):
            basis = torch.linalg.qr(matrix.mT @ (matrix @ basis))[0]
        image = (matrix @ basis).double()
        _, rotation = torch.linalg.eigh(image.mT @ image)
        right = basis @ rotation[:, -rank:].to(basis)
        residual = target - (matrix @ right) @ right.mT
        sparse = hard_threshold(residual, keep)
        residual -= sparse
        advance(f"iteration {n + 1}")
    return residual


def _svd_seconds(matrix: Float[Tensor, "d_out d_in"], times: int) -> float:
    started = time.process_time()
    for _ in range(times):
        torch.linalg.svd(matrix, full_matrices=False)
    return time.process_time() - started
