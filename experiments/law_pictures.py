"""The laws of training as pictures: functions of arrays, no model, no run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from experiments.pictures import figure
from experiments.report import BLUE, GREEN, INK, ORANGE

if TYPE_CHECKING:
    from toy.laws.frontier import Frontier

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
