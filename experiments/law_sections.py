"""The laws of training in words and tables: one section a law, a function of what was measured."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments import law_pictures
from experiments.intervals import interval
from experiments.report import Picture, Section, Table

if TYPE_CHECKING:
    from toy.laws.frontier import Frontier
    from toy.laws.growth import Growth
    from toy.laws.lengths import Lengths
    from toy.laws.typical import Typical


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
            f"{one.plain_effective[k + 1]:.0f}",
            f"{one.d[k + 1] * one.s_tag[k + 1]:.2f}",
            f"{one.unit_loss[k + 1] / one.loss[k + 1]:.1f}",
        )
        for one in found
        for k in range(len(one.slope))
    ]
    columns = (
        "numbers", "s_tag", "slope of log loss", "predicted", "loss at the end", "predicted / loss",
        "plain MC / loss", "effective n", "of plain MC", "best d × s", "loss at d = 1 / loss",
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
    others = "; ".join(
        f"{one.tail}, s = {one.s_tag[len(one.s_tag) // 2]:g}: "
        + ", ".join(f"{name} {ratio:.3f}" for name, ratio in one.others.items())
        for one in found
    )
    text.append(
        "W_V1 = diag(0, -w) and b could be free as well. They gain a percent at most, so that d "
        f"alone makes the frontier; loss over that at w = 1, b = 0, with the best d: {others}."
    )
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


def growth(found: "Sequence[Growth]", frontiers: "Sequence[Frontier]") -> Section:
    """How s_tag grows with the logarithm of the step, by rule and tail."""
    rows = []
    for one in found:
        those = one.slope[one.counted]
        span = f"{one.least:.2f}"
        if one.most != one.least:
            span += f" to {one.most:.2f}"
        rows.append(
            (
                one.optimizer,
                f"{one.learning_rate:g}",
                one.tail,
                f"{len(those)} of {len(one.slope)}",
                f"{np.median(one.fvu[one.counted]):.2g}" if len(those) else "–",
                f"{np.median(one.s_tag[one.counted, -1]):.2f}" if len(those) else "–",
                str(interval(those)) if len(those) else "–",
                span,
                str(interval(those * one.steepness)) if len(those) else "–",
            )
        )
    columns = (
        "rule", "step size", "numbers", "seeds with the sink", "variance unexplained", "s_tag",
        "ds/dlog(step), last half", "predicted", "times k",
    )  # fmt: skip
    text = [
        "Once the loss lies on its frontier, with k its slope there, s_tag grows like log(step): "
        "by 1/k under gradient descent, by 2/k under Adam, whose normaliser shrinks with the root "
        "of the loss, by something between under sign descent. Predictions take k at the median "
        "s_tag of the last half; nothing is fitted.",
        "The law speaks about constant step sizes on the frontier. A rule that has not arrived "
        "there (variance unexplained far above the frontier's) grows otherwise: here gradient "
        "descent, and Adam on Laplace numbers.",
    ]
    table = Table(columns, rows, "Mean over seeds with its 95% bootstrap interval.")
    picture = Picture(
        "law-growth",
        law_pictures.growths(found),
        "Every seed with the sink; dashed, the predicted slope over the last half.",
    )
    title = "s_tag grows like the logarithm of the step"
    return Section(title, text, [table, _flow(frontiers)], [picture])


def _flow(found: "Sequence[Frontier]") -> Table:
    """Gradient flow along each measured frontier: what 1 / k comes to."""
    from toy.laws.growth import flow_time

    rows = []
    for one in found:
        log_tau = np.log(flow_time(one.s_tag, one.loss))
        pace = np.diff(one.s_tag) / np.diff(log_tau)
        rows += [
            (
                one.tail,
                f"{one.s_tag[k]:g} to {one.s_tag[k + 1]:g}",
                f"{pace[k]:.2f}",
                f"{-1 / one.predicted_slope[k]:.2f}",
            )
            for k in (1, len(pace) - 1)
        ]
    return Table(
        ("numbers", "s_tag", "gradient flow along the measured frontier", "1/k predicted"),
        rows,
        "ds/dlog(time), the other weights at their best throughout.",
    )


def lengths(found: "Lengths") -> Section:
    """How trained seeds do at lengths that training never showed."""
    rows = [
        (
            f"{T}",
            f"{np.median(found.measured[:, k]):.2g}",
            str(interval(np.log10(found.measured[:, k] / found.law[:, k]))),
            f"{np.median(found.law[:, k]):.2g}",
            f"{np.median(found.leak[:, k]):.2g}",
            f"{np.median(found.leak_law[:, k]):.2g}",
        )
        for k, T in enumerate(found.T.tolist())
    ]
    columns = (
        "T", "variance unexplained", "log₁₀(measured / predicted)", "predicted", "leak alone",
        "leak predicted",
    )  # fmt: skip
    text = [
        "Two numbers of a seed, s_tag and the gap of layer 2's logits at the lengths it was "
        "trained on, foresee its error at other lengths: one large number costs the same share of "
        "the target's variance at every length, and what leaks from before [SEP] grows with T.",
        f"The gap of these seeds is {np.median(found.gap):.1f} "
        f"({found.gap.min():.1f} to {found.gap.max():.1f}). The law of the leak takes the median "
        "gap; the leak itself comes from the rare inputs whose last number is large, so it lies "
        "above that law at short lengths.",
    ]
    table = Table(
        columns,
        rows,
        f"Medians over {len(found.gap)} seeds; {found.sequences} weighted sequences a length; "
        "95% bootstrap interval over seeds.",
    )
    picture = Picture("law-lengths", law_pictures.lengths(found), "Error over the length.")
    return Section("Length: a flat floor and a slow leak", text, [table], [picture])


def typical(found: "Sequence[Typical]") -> Section:
    """How far the bound lies above typical errors."""
    rows = [
        (
            one.tail,
            f"{one.s_tag[k]:g}",
            f"{one.ratio[k]:.1f} [{one.low[k]:.1f}, {one.high[k]:.1f}]",
            f"{one.predicted[k]:.1f}",
            f"{one.share[k]:.3f}",
        )
        for one in found
        for k in range(len(one.s_tag))
    ]
    text = [
        "Theorem B has the right rate for typical inputs too: bound over error tends to a number "
        "of the input alone, which the theory gives. Only its constant is a worst case's.",
    ]
    table = Table(
        ("numbers", "s_tag", "bound / |f - m|, median", "predicted", "inputs with bound < X"),
        rows,
        f"{', '.join(f'{one.sequences} {one.tail}' for one in found)} sequences with n > 1, d = 1; "
        "X = max|x| of each; over the inputs whose bound is below X; 95% by order statistics.",
    )
    picture = Picture("law-typical", law_pictures.typical(found), "Dots measured, lines predicted.")
    return Section("The bound against typical inputs", text, [table], [picture])
