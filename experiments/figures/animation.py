"""Catch, tag and release as the embedding scale of [SEP] grows, as a film."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from experiments.figures.mechanism import catch, release, tag
from experiments.figures.stages import Stages, observe, refuse_bad_shapes
from experiments.film import Film
from experiments.pictures import figure
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import Picture, Section, Table
from experiments.settings import BadOption, within


@dataclass(frozen=True)
class Config:
    """One random sequence, more and more of a sink."""

    T: int = 16
    """Length of the sequence."""
    t: int = 7
    """Position of [SEP], from 1."""
    X: float = 1.5
    """Largest magnitude of a number."""
    lowest: float = 1.05
    """s_tag of the first frame; above 1."""
    highest: float = 14.0
    """s_tag of the last frame."""
    frames: int = 40
    """How many scales."""
    seed: int = 0
    """What the sequence is drawn from."""


@dataclass(frozen=True)
class Result:
    """The stages at each scale."""

    config: Config
    inputs: Inputs
    s_tag: list[float]
    stages: list[Stages]


def run(config: Config, progress: Progress) -> Result:
    """One forward pass a frame, the same sequence in all.

    Raises:
        BadOption: sizes that make no film.
    """
    refuse_bad_shapes(config.T, config.t, config.X, config.seed)
    within("frames", config.frames, 2, 500)
    within("highest", config.highest, 1.05, 1e3)
    if not 1 < config.lowest < config.highest:
        raise BadOption(f"--lowest {config.lowest}: give a scale above 1, below --highest")
    x = np.random.default_rng(config.seed).uniform(-config.X, config.X, config.T)
    scales = np.linspace(config.lowest, config.highest, config.frames).tolist()
    with progress.task("frames", config.frames) as advance:
        stages = []
        for s in scales:
            stages.append(observe(x, config.t, s))
            advance(f"s_tag {s:.2f}")
    return Result(config, Inputs(dtype="float64"), scales, stages)


def sections(result: Result) -> list[Section]:
    """The film, and a few of its frames as numbers."""
    last = result.stages[-1]
    text = [
        "As s_tag grows, attention gathers on [SEP], the tokens after it rise together, and the "
        "last row of layer 2 becomes even over them: the output goes to the mean after [SEP], "
        f"{last.target:+.4f}.",
    ]
    picked = np.unique(np.linspace(0, len(result.stages) - 1, 6).round().astype(int))
    rows = [
        (
            f"{result.s_tag[k]:.2f}",
            f"{(s := result.stages[k]).sink:.4f}",
            f"{s.tags.mean():.3f}",
            f"{s.output:+.4f}",
            f"{s.output - s.target:+.1e}",
        )
        for k in picked
    ]
    columns = ("s_tag", "least attention on [SEP] after it", "mean tag", "output", "output - mean")
    film = Film([draw(result, k) for k in range(len(result.stages))])
    caption = f"s_tag from {result.s_tag[0]:g} to {result.s_tag[-1]:g}; one sequence, float64."
    return [
        Section("As s_tag grows", text, [Table(columns, rows)], [Picture("film", film, caption)])
    ]


def draw(result: Result, index: int) -> Figure:
    """One frame; all frames have the same axes, so that things move and not the ground."""
    canvas, (left, middle, right) = figure(11.5, 4.0, columns=3)
    stages, last = result.stages[index], result.stages[-1]
    catch(left, stages)
    tag(middle, stages)
    release(right, stages)
    reach = 1.1 * result.config.X
    middle.set_xlim(-reach, reach)
    middle.set_ylim(-0.45 * last.tags.max(), 1.15 * last.tags.max())
    middle.legend(fontsize=8, loc="lower left")
    right.set_ylim(0, 1.2 * max(stages.readout.max() for stages in result.stages))
    canvas.suptitle(
        f"s_tag = {result.s_tag[index]:05.2f} · output {stages.output:+.3f} · "
        f"mean after [SEP] {stages.target:+.3f}",
        family="monospace",
        fontsize=11,
    )
    return canvas
