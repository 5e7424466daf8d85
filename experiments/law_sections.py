"""The laws of training in words and tables: one section a law, a function of what was measured."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments import law_pictures
from experiments.report import Picture, Section, Table

if TYPE_CHECKING:
    from toy.laws.frontier import Frontier


def frontier(found: "Sequence[Frontier]") -> Section:
    """How little loss an embedding scale allows, by the tail of the numbers."""
    rows = [
        (
            one.tail,
            f"{one.s_tag[k]:g} to {one.s_tag[k + 1]:g}",
            f"{one.slope[k]:.3f} [{one.slope_low[k]:.3f}, {one.slope_high[k]:.3f}]",
            f"{one.predicted_slope[k]:.3f}",
            f"{one.loss[k + 1]:.3g}",
            f"{one.predicted[k + 1] / one.loss[k + 1]:.3f}",
            f"{one.plain_loss[k + 1] / one.loss[k + 1]:.3f}",
            f"{one.effective[k + 1]:.0f}",
            f"{one.d[k + 1] * one.s_tag[k + 1]:.2f}",
            f"{one.unit_loss[k + 1] / one.loss[k + 1]:.1f}",
        )
        for one in found
        for k in range(len(one.slope))
    ]
    columns = (
        "numbers", "s_tag", "slope of log loss", "predicted", "loss at the end", "predicted / loss",
        "plain MC / loss", "effective n", "best d × s", "loss at d = 1 / loss",
    )  # fmt: skip
    text = [
        "The loss that an embedding scale allows falls as the tail of the numbers dictates: like "
        "e^{-2s} for bounded numbers, like e^{-s/2} for Gaussian ones, like e^{-√(2s)} for Laplace "
        "ones. The predictions have no fitted constant: first order in e^{-s} for bounded numbers, "
        "one large number at a time for the others.",
        "Plain Monte Carlo does not see the tail: its estimate falls below the true loss while its "
        "own error bar stays small. The best d falls at least as fast as 1/s, and faster for a "
        "heavier tail; d = 1 costs up to three orders of magnitude.",
    ]
    table = Table(
        columns,
        rows,
        f"{found[0].sequences:,} sequences a tail, T = 16 to 32, t uniform; 95% block bootstrap.",
    )
    picture = Picture(
        "law-frontier",
        law_pictures.frontiers(found),
        "Dots: measured by importance sampling. Lines: predicted. Crosses: plain Monte Carlo.",
    )
    return Section("The loss frontier follows the tail of the numbers", text, [table], [picture])
