"""What both layers do to one sequence: the paper's figure 1 from live numbers, with a control."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures.stages import Stages, observe, refuse_bad_shapes
from experiments.pictures import figure
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import BLUE, INK, ORANGE, RED, Picture, Section, Table
from experiments.settings import between

if TYPE_CHECKING:
    from matplotlib.image import AxesImage


@dataclass(frozen=True)
class Config:
    """One random sequence through the transformer of the theorem."""

    T: int = 16
    """Length of the sequence."""
    t: int = 7
    """Position of [SEP], from 1."""
    X: float = 1.5
    """Largest magnitude of a number."""
    s_tag: float = 12.0
    """Embedding scale of [SEP]."""
    seed: int = 0
    """What the sequence is drawn from."""


@dataclass(frozen=True)
class Result:
    """The sequence in the theorem's weights, and in the same weights with W_V1 = 0."""

    config: Config
    inputs: Inputs
    theorem: Stages
    untagged: Stages


def run(config: Config, progress: Progress) -> Result:
    """Two forward passes in float64."""
    refuse_bad_shapes(config.T, config.t, config.X, config.seed)
    between("s-tag", config.s_tag, 1, 1e3)
    x = np.random.default_rng(config.seed).uniform(-config.X, config.X, config.T)
    theorem, untagged = (
        observe(x, config.t, config.s_tag, tagging=tagging) for tagging in (True, False)
    )
    return Result(config, Inputs(dtype="float64"), theorem, untagged)


def sections(result: Result) -> list[Section]:
    """The three stages, and what is left of them without the tag."""
    theorem, untagged = result.theorem, result.untagged
    text = [
        "Catch: in layer 1 every token after [SEP] attends to [SEP]. Tag: [SEP]'s value moves all "
        "of them by the same large amount along one coordinate. Release: in layer 2 the last "
        "token attends to what is tagged, evenly, and so reads out the mean.",
        f"The output is {theorem.output:+.6f} and the mean after [SEP] {theorem.target:+.6f}. "
        "The control has W_V1 = 0, that is the same sink and no tag: its last row gives "
        f"{untagged.readout[result.config.t - 1]:.3f} to [SEP], which still carries the outlier "
        f"that layer 1 would have erased, and its output is {untagged.output:+.6f}.",
    ]
    rows = [
        (
            name,
            f"{s.sink:.6f}",
            f"{s.tags.mean():.4f}",
            f"{s.readout[s.t :].sum():.4f}",
            f"{s.output - s.target:+.2e}",
        )
        for name, s in (("theorem", theorem), ("control: W_V1 = 0", untagged))
    ]
    table = Table(
        (
            "weights",
            "least attention on [SEP] after it",
            "mean tag after it",
            "read-out after it",
            "output - mean",
        ),
        rows,
        f"One sequence, T = {result.config.T}, t = {result.config.t}, float64.",
    )
    caption = (
        f"Layer 1's attention, the stream after layer 1, and the row of layer 2 that is read out; "
        f"s_tag = {result.config.s_tag:g}. Above: the theorem's weights. Below: without the tag."
    )
    return [
        Section("Catch, tag, release", text, [table], [Picture("mechanism", draw(result), caption)])
    ]


def draw(result: Result) -> Figure:
    """Two rows of three panels: theorem and control; catch, tag, release."""
    canvas, axes = figure(11.5, 7.2, rows=2, columns=3)
    for row, (name, stages) in enumerate(
        (("theorem", result.theorem), ("no tag (control)", result.untagged))
    ):
        left, middle, right = axes[3 * row : 3 * row + 3]
        canvas.colorbar(catch(left, stages), ax=left, shrink=0.8)
        tag(middle, stages)
        release(right, stages)
        left.set_ylabel(f"{name}\nquery")
    return canvas


def catch(axes: Axes, stages: Stages) -> "AxesImage":
    """Layer 1's pattern, [SEP] framed."""
    image = axes.imshow(stages.pattern, cmap="Blues", vmin=0, vmax=1)
    axes.axvline(stages.t - 1.5, color=RED, linewidth=0.8)
    axes.axvline(stages.t - 0.5, color=RED, linewidth=0.8)
    axes.set_xticks([stages.t - 1], ["[SEP]"], color=RED)
    axes.set_yticks([stages.t - 1], ["[SEP]"], color=RED)
    axes.set(title="catch: attention, layer 1", xlabel="key", ylabel="query")
    return image


def tag(axes: Axes, stages: Stages) -> None:
    """The stream after layer 1: number against tag."""
    i = np.arange(1, len(stages.stream) + 1)
    for where, colour, marker, name in (
        (i < stages.t, ORANGE, "o", "before [SEP]"),
        (i == stages.t, RED, "X", "[SEP]"),
        (i > stages.t, BLUE, "o", "after [SEP]"),
    ):
        axes.scatter(*stages.stream[where].T, c=colour, marker=marker, label=name, zorder=3)
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.set(title="tag: stream after layer 1", xlabel="number", ylabel="tag")
    axes.margins(y=0.25)
    axes.legend(fontsize=8, loc="best")


def release(axes: Axes, stages: Stages) -> None:
    """The read-out row of layer 2 against the uniform one after [SEP]."""
    i = np.arange(1, len(stages.readout) + 1)
    colours = np.where(i < stages.t, ORANGE, np.where(i == stages.t, RED, BLUE))
    axes.bar(i, stages.readout, color=colours, width=0.8)
    axes.step(
        np.append(i, i[-1] + 1) - 0.5,
        np.append(stages.uniform, stages.uniform[-1]),
        where="post",
        color=INK,
        linewidth=1.2,
        label="even after [SEP]",
    )
    axes.set(title="release: read-out row, layer 2", xlabel="key", ylabel="attention")
    axes.set_ylim(0, 1.35 * max(stages.readout.max(), stages.uniform.max()))
    axes.legend(fontsize=8, loc="upper left")
