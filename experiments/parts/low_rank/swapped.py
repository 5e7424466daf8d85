"""OATS' terms and their controls in the place of some linears, one after another."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from experiments import naming
from experiments.progress import Progress
from experiments.settings import Budget
from experiments.where import Where

if TYPE_CHECKING:  # torch is imported when the question is asked, not for --help
    from experiments.parts.work import Work

DRAWN = "control: random low-rank term alone"
TERMS = (naming.BOTH, naming.SPARSE, naming.LOW)
CONTROLS = (naming.PLAIN, naming.AS_FAR, DRAWN)


def swapped(
    work: "Work",
    budget: Budget,
    select: str,
    names: Sequence[str],
    progress: Progress,
    *,
    seed: int = 0,
) -> Iterator[tuple[str, float]]:
    """Each name in turn, while the model has that term in the linears that `select` matches.

    The name stands beside the mean over those linears of ‖(W - Ŵ)D‖² / ‖WD‖², D = diag √E[x²].
    Everything else is dense; so is the model after the last one. One calibration serves all.
    DRAWN: a random term of rank and scaled norm of the low-rank term, in its place.

    Raises:
        BadInput: `select` matches nothing.
    """
    from bridge.controls import random_low_rank_like
    from bridge.toggle import swap
    from experiments import measure, roster, variants

    asked = variants.TERMS | variants.AS_FAR
    asked[DRAWN] = lambda m, g: random_low_rank_like(m.low, g, scale=m.columns)
    model, material = work.loaded.model, measure.Material(*work[2:], work.inputs)
    oats = roster.oats(budget)
    matrices = variants.calibrated(model, oats, Where(select), material, progress)
    for name in names:
        operators, removed = variants.operators(matrices, asked[name], seed)
        with swap(model, operators):
            yield name, removed
