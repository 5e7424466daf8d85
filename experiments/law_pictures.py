"""The laws of training as pictures: functions of arrays, no model, no run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from experiments.pictures import figure
from experiments.report import BLUE, GREEN, INK, ORANGE

if TYPE_CHECKING:
    from toy.laws.compressed import Study
    from toy.laws.frontier import Frontier
    from toy.laws.growth import Growth
    from toy.laws.lengths import Lengths
    from toy.laws.typical import Typical
    from toy.train import History

COLOURS = {"uniform": BLUE, "gaussian": ORANGE, "laplace": GREEN}


def frontiers(found: Sequence["Frontier"]) -> Figure:
    """Least loss over the embedding scale by tail with its prediction, and the best d."""
    canvas, (left, right) = figure(11, 4.6, columns=2)
    for one in found:
        colour = COLOURS[one.tail]
        left.fill_between(one.s_tag, one.low, one.high, color=colour, alpha=0.25)
        left.semilogy(one.s_tag, one.loss, "o", color=colour, markersize=4, label=one.tail)
        left.semilogy(one.s_tag, one.predicted, "-", color=colour, linewidth=1.4)
        right.loglog(one.s_tag, one.d, "o", color=colour, markersize=4)
        right.loglog(one.s_tag, one.predicted_d, "-", color=colour, linewidth=1.4)
    left.plot([], [], "-", color=INK, label="predicted, nothing fitted")
    for one in found:
        if one.tail == "gaussian":
            left.semilogy(
                one.s_tag, one.plain_loss, "x", color=INK, markersize=5, label="gaussian, plain MC"
            )
    left.set(xlabel=r"$s_\mathrm{tag}$", ylabel="min over d of the loss", title="loss frontier")
    left.legend(fontsize=9)
    s = found[0].s_tag
    right.loglog(s, 1 / s, ":", color=INK, label=r"$1/s_\mathrm{tag}$")
    right.set(xlabel=r"$s_\mathrm{tag}$", ylabel="best d", title="the query weight that reaches it")
    right.legend(fontsize=9)
    return canvas


def growths(found: Sequence["Growth"]) -> Figure:
    """s_tag over log step by rule, and the predicted slope drawn from where it is judged."""
    rules = list(dict.fromkeys(one.optimizer for one in found))
    canvas, panels = figure(11, 4.2, columns=len(rules))
    for axes, rule in zip(panels, rules, strict=True):
        for one in found:
            if one.optimizer != rule or not one.counted.any():
                continue
            colour, seen = COLOURS[one.tail], one.s_tag[one.counted]
            axes.semilogx(one.step, seen.T, color=colour, linewidth=0.9, alpha=0.5)
            axes.plot([], [], color=colour, label=one.tail)
            half = one.step > one.step[-1] / 2
            step, start = one.step[half], np.median(seen[:, half][:, 0])
            for slope in dict.fromkeys((one.least, one.most)):
                axes.plot(step, start + slope * np.log(step / step[0]), "--", color=INK, lw=1.6)
        axes.plot([], [], "--", color=INK, label="predicted slope")
        axes.set(xlabel="step", ylabel=r"$s_\mathrm{tag}$", title=rule)
        axes.legend(fontsize=9)
    return canvas


def lengths(found: "Lengths") -> Figure:
    """Unexplained variance over the length, measured and from two numbers a seed."""
    canvas, (axes,) = figure(8, 4.4)
    for values, law, colour, name in (
        (found.measured, found.law, BLUE, "error"),
        (found.leak, found.leak_law, ORANGE, "leak alone"),
    ):
        low, middle, high = np.quantile(values, [0, 0.5, 1], axis=0)
        axes.fill_between(found.T, low, high, color=colour, alpha=0.2)
        axes.loglog(found.T, middle, "o-", color=colour, label=f"{name}: median, range")
        axes.loglog(found.T, np.median(law, axis=0), "--", color=colour, label=f"{name}: predicted")
    axes.axvspan(16, 32, color=INK, alpha=0.07, label="lengths trained on")
    axes.set_xticks(found.T, [str(T) for T in found.T])
    axes.minorticks_off()
    axes.set(xlabel="T", ylabel="variance unexplained", title="length generalisation")
    axes.legend(fontsize=9, ncols=2)
    return canvas


def spectra(history: "History") -> Figure:
    """Second over first singular value of both matrices, and the loss, over training."""
    canvas, (left, right) = figure(11, 4.2, columns=2)
    for values, colour, name in (
        (history.sigma_V1, ORANGE, r"$W_V$ of layer 1"),
        (history.sigma_QK, BLUE, r"$W_Q W_K^\top$ of layer 2"),
    ):
        left.loglog(history.step, (values[..., 1] / values[..., 0]).T, color=colour, alpha=0.4)
        left.plot([], [], color=colour, label=name)
        right.loglog(history.step, values[..., 0].T, color=colour, alpha=0.4)
        right.loglog(history.step, values[..., 1].T, ":", color=colour, alpha=0.6)
    left.loglog(history.step, np.median(history.loss, axis=0), color=INK, label="loss, median")
    left.set(xlabel="step", ylabel=r"$\sigma_2/\sigma_1$; loss", title="rank over training")
    left.legend(fontsize=9)
    right.set(xlabel="step", title=r"$\sigma_1$ (lines) and $\sigma_2$ (dotted)")
    return canvas


def compression(found: "Study") -> Figure:
    """What each intervention costs, what was foreseen and what noise of its size costs."""
    canvas, panels = figure(11.5, 5.2, columns=2)
    for axes, matrix in zip(panels, ("W_V1", "M"), strict=True):
        rows = [row for row in found.rows if row.matrix == matrix]
        at = np.arange(len(rows))[::-1]
        for series, look, colour, name in (
            ([row.noise for row in rows], "x", INK, "Gaussian, equal norm"),
            ([row.foreseen for row in rows], "|", ORANGE, "first order"),
            ([row.change for row in rows], "o", BLUE, "measured"),
        ):
            middle = [max(float(np.median(values)), 1e-12) for values in series]
            axes.plot(middle, at, look, color=colour, label=name, markersize=7)
        axes.hlines(
            at,
            [max(float(row.change.min()), 1e-12) for row in rows],
            [max(float(row.change.max()), 1e-12) for row in rows],
            color=BLUE,
            linewidth=3,
            alpha=0.3,
        )
        axes.set_xscale("log")
        axes.set_yticks(at, [row.name for row in rows])
        name = r"$W_V$ of layer 1" if matrix == "W_V1" else r"$W_Q W_K^\top$ of layer 2"
        axes.set(xlabel="change of the output / Var(target)", title=name)
    handles, labels = panels[0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    return canvas


def typical(found: Sequence["Typical"]) -> Figure:
    """Bound over error of typical inputs, with the limit that the input alone decides."""
    canvas, (axes,) = figure(8, 4.2)
    for one in found:
        colour = COLOURS[one.tail]
        axes.fill_between(one.s_tag, one.low, one.high, color=colour, alpha=0.25)
        axes.semilogy(one.s_tag, one.ratio, "o", color=colour, label=one.tail)
        axes.semilogy(one.s_tag, one.predicted, "-", color=colour)
    axes.plot([], [], "-", color=INK, label="predicted")
    axes.set(xlabel=r"$s_\mathrm{tag}$", ylabel="bound / |f - m|, median", title="typical inputs")
    axes.legend(fontsize=9)
    return canvas
