"""The same alternation, one pass over the matrix an iteration and a few times fewer iterations."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bridge.splitting import subspace
from bridge.splitting.split import Matrix, Split, thresholded
from bridge.splitting.subspace import Step, Stream, Subspace

# Momentum needs a run-up: below this many iterations one does not stand for several.
FEWEST = 10


Scale = Float[Tensor, " d_in"]


class Errors(NamedTuple):
    """‖A - L - S‖ and ‖(A - L - S) D⁻¹‖; without a scale they are one."""

    scaled: float
    unscaled: float


@dataclass(frozen=True)
class WarmSubspace:
    """The alternation of `FullSVD`, in a quarter of its iterations and without its SVDs.

    The right subspace V is carried from one iteration to the next, and a step of subspace
    iteration, L = P_BV B, stands for the SVD. With Z = L + β (L - L₋), R = A - Z and S = HT(R),
    the next matrix to approximate is B = Z + η (R - S); β = 0 and η = 1 are the plain loop. β
    rises over the run, η stays at 0.93 of the stability bound (2+2β)/(1+2β), and the number of
    entries kept rises to k, so that the first low-rank terms do not chase what S will hold. The
    last two iterations are plain and in float32, so L and S are consistent, the counts exact, and
    what momentum did to a channel too small to matter is undone there.

    If the result is not finite, or worse than one plain iteration in the scaled or in the
    unscaled norm, the plain loop is run for all its iterations instead, and `Split.note` says so.
    That is all the guard promises: in exact arithmetic a plain iteration never raises the scaled
    error, so that of what is returned is at most the first one's. The start is drawn from `seed`:
    same input, same output on one machine.
    """

    acceleration: int = 4
    """One accelerated iteration stands for this many of the definition, from FEWEST on."""
    momentum: tuple[float, float] = (0.5, 0.97)
    """β at the beginning and at the end."""
    first_kept: float = 0.4
    """Share of k that is kept at first."""
    coarse: bool | None = None
    """Products of all but the last two iterations in bfloat16. None: where the processor has them
    and one plain iteration leaves an error of at least 2⁻⁴, since 2⁻⁹ of A is rounded away."""
    seed: int = 0
    """Of the random subspace to start from."""

    def __call__(
        self,
        target: Matrix,
        *,
        rank: int,
        keep: int,
        iterations: int,
        scale: Scale | None = None,
        of: int | None = None,
    ) -> Split:
        """As many iterations as stand for `iterations`; `scale` divides the columns (see guard).

        `keep` entries are kept of each row, or of every `of` consecutive ones.
        """
        if rank == 0:
            return Split(target[:, :0], target[:0], thresholded(target, keep, of))
        unit = _unit(target)
        target = target / unit
        begun = subspace.start(target, rank, self.seed)
        found, bounds = finish(target, begun, keep, scale, of)
        steps = self.steps(iterations)
        if steps > 1:
            schedule = self.schedule(steps, keep, self.is_coarse(target, bounds))
            found, errors = alternate(target, begun, keep, schedule, scale, of)
            if not sound(errors, bounds):
                plain = [Step(0.0, 1.0, keep)] * (iterations - 1)
                found, _ = alternate(target, begun, keep, plain, scale, of)
                note = f"acceleration unsound: {iterations} plain iterations instead"
                found = found._replace(note=note)
        return found._replace(left=found.left * unit, sparse=found.sparse * unit)

    def steps(self, iterations: int) -> int:
        """Iterations that stand for `iterations` of the definition."""
        return max(math.ceil(iterations / self.acceleration), min(iterations, FEWEST))

    def is_coarse(self, target: Matrix, first: Errors) -> bool:
        """Whether `coarse` comes to bfloat16 for A, of which one plain iteration leaves `first`."""
        if self.coarse is None:
            resolved = first.scaled >= 2**-4 * float(target.norm())
            return resolved and target.dtype == torch.float32 and native_bfloat16(target)
        return self.coarse

    def products(self, target: Matrix, *, rank: int, keep: int, iterations: int) -> tuple[int, int]:
        """How many products of 2 d_out d_in r operations a call makes, fine and coarse ones.

        Four to start, one for the guard, three an iteration and one at the end.
        """
        steps = self.steps(iterations)
        if rank == 0 or steps == 1:
            return (5, 0) if rank else (0, 0)
        begun = subspace.start(target, rank, self.seed)
        _, first = finish(target, begun, keep, None)
        coarse = 3 * (steps - 2) if self.is_coarse(target, first) else 0
        return 4 + 1 + 3 * (steps - 1) + 1 - coarse, coarse

    def schedule(self, steps: int, keep: int, coarse: bool = False) -> list[Step]:
        """All iterations but the last, which `finish` is; the one before it is plain, too."""
        low, high = self.momentum
        schedule = []
        for k in range(steps - 2):
            momentum = low + (high - low) * k / steps if k else 0.0
            relaxation = 0.93 * (2 + 2 * momentum) / (1 + 2 * momentum)
            share = self.first_kept + (1 - self.first_kept) * min(1.0, k / (0.7 * (steps - 1)))
            schedule.append(Step(momentum, relaxation, round(share * keep), coarse))
        return [*schedule, Step(0.0, 1.0, keep)]


def native_bfloat16(x: Tensor) -> bool:
    """Whether the processor that holds `x` multiplies bfloat16 in hardware (twice as fast here)."""
    if x.device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities() if x.device.type == "cpu" else {}
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def alternate(
    target: Matrix,
    begun: Subspace,
    keep: int,
    schedule: list[Step],
    scale: Scale | None,
    of: int | None = None,
) -> tuple[Split, Errors]:
    """Run `schedule`, then a plain iteration that ends it."""
    space, stream = begun, Stream(target, of)
    for step in schedule:
        space = stream.advance(space, step)
    return finish(target, space, keep, scale, of)


def finish(
    target: Matrix, space: Subspace, keep: int, scale: Scale | None, of: int | None = None
) -> tuple[Split, Errors]:
    """L of the subspace, S = HT_k(A - L), and what they leave."""
    left, right = space.image, space.right()
    sparse = torch.empty_like(target)
    lost = torch.zeros(target.shape[1], dtype=torch.float64, device=target.device)
    rows = max(1, subspace.BLOCK // target.shape[1])
    for first in range(0, len(target), rows):
        at = slice(first, first + rows)
        residual = target[at] - left[at] @ right
        sparse[at] = thresholded(residual, keep, of)
        lost += (residual - sparse[at]).square().sum(0)
    unscaled = lost if scale is None else lost / scale.double().square()
    errors = Errors(math.sqrt(float(lost.sum())), math.sqrt(float(unscaled.sum())))
    return Split(left, right, sparse), errors


def sound(fast: Errors, plain: Errors) -> bool:
    """Finite, and no worse than `plain` in either norm."""
    return all(math.isfinite(f) and f <= p for f, p in zip(fast, plain, strict=True))


def _unit(target: Matrix) -> float:
    """The power of two below max |A|: divided by it, fourth powers of A stay in range, exactly."""
    largest = float(target.abs().max())
    return 2.0 ** (math.frexp(largest)[1] - 1) if 0 < largest < math.inf else 1.0
