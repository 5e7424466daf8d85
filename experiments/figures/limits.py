"""How fast layer 1's attention weights converge: the paper's figure 6, with its rates corrected."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments.figures.stages import observe, refuse_bad_shapes
from experiments.pictures import figure
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import BLUE, INK, ORANGE, RED, Picture, Section, Table
from experiments.settings import within


@dataclass(frozen=True)
class Config:
    """The defects of layer 1's limit pattern as s_tag grows."""

    T: int = 16
    """Length of the sequence."""
    t: int = 7
    """Position of [SEP], from 1."""
    X: float = 1.5
    """Largest magnitude of a number."""
    highest: float = 12.0
    """Largest s_tag."""
    seed: int = 0
    """What the sequence is drawn from."""


@dataclass(frozen=True)
class Result:
    """1 - A1[i, t] at each scale, in the rows of three kinds, measured and bounded."""

    config: Config
    inputs: Inputs
    s_tag: Float[np.ndarray, " scale"]
    after: Float[np.ndarray, " scale"]  # the largest of the rows after [SEP]
    after_bound: Float[np.ndarray, " scale"]
    after_lower: Float[np.ndarray, " scale"]  # what the last row misses at least
    itself: Float[np.ndarray, " scale"]  # row t, in the transformer
    itself_exact: Float[np.ndarray, " scale"]
    before: Float[np.ndarray, " scale"]  # the largest A1[i, t] of the rows before [SEP]


def run(config: Config, progress: Progress) -> Result:
    """The flax transformer beside the closed form and its bounds, scale by scale."""
    from toy.bounds import sink_bounds

    refuse_bad_shapes(config.T, config.t, config.X, config.seed)
    within("highest", config.highest, 2, 200)  # beyond, too few of the scales show a rate
    x = np.random.default_rng(config.seed).uniform(-config.X, config.X, config.T)
    scales = np.linspace(1.05, config.highest, 60)
    rows, bounds = [], []
    for s in scales:
        pattern = observe(x, config.t, float(s)).pattern
        column = pattern[:, config.t - 1]
        # What row t gives to the others: 1 - A1[t, t] itself would round to 0 at once.
        missed = pattern[config.t - 1, : config.t - 1].sum()
        elsewhere = np.delete(pattern, config.t - 1, axis=1)[config.t :].sum(axis=1)
        rows.append((elsewhere.max(), missed, column[: config.t - 1].max(initial=0.0)))
        interval = sink_bounds(config.T, config.t, config.X, s_tag=float(s))
        bounds.append((1 - interval.lower[-1], 1 - interval.upper[-1]))
    after, itself, before = np.array(rows).T
    upper, lower = np.array(bounds).T
    odds = (config.t - 1) * np.exp(-scales * (scales - 1))
    return Result(
        config,
        Inputs(dtype="float64"),
        scales,
        after,
        upper,
        lower,
        itself,
        odds / (1 + odds),
        before,
    )


def slope(s: Float[np.ndarray, " scale"], values: Float[np.ndarray, " scale"]) -> float:
    """d log(values) / ds over the upper third of the scales that a float can tell from zero."""
    good = values > 1e-12
    start = s[good][-1] - (s[good][-1] - s[0]) / 3
    chosen = good & (s >= start)
    return float(np.polyfit(s[chosen], np.log(values[chosen]), 1)[0])


def sections(result: Result) -> list[Section]:
    """The three kinds of row and their rates."""
    s = result.s_tag
    after = slope(s, result.after)
    text = [
        "Rows before [SEP] never see it: causality, at any scale. Rows after it give everything "
        "to it up to a defect that falls like e^-s. [SEP]'s own row converges like e^-(s² - s), "
        "far faster than the e^-s that the paper's caption states for it.",
    ]
    rows = [
        ("before [SEP]: largest A1[i, t]", f"{result.before.max():.1e}", "0", "exact"),
        ("after [SEP]: d log(1 - A1[i, t]) / ds", f"{after:.3f}", "-1", "as s grows"),
    ]
    if result.config.t > 1:
        seen = result.itself > 1e-12
        gap = np.abs(np.log(result.itself[seen] / result.itself_exact[seen])).max()
        rows.append(
            ("[SEP]: |log of (1 - A1[t, t]) over (t-1)/(t-1+e^(s²-s))|", f"{gap:.1e}", "0", "exact")
        )
    table = Table(("row", "measured", "predicted", ""), rows, "One sequence, float64.")
    caption = "1 - A1[i, t] in the transformer, and what is proved of the last row (shaded)."
    return [Section("Layer 1", text, [table], [Picture("limits", draw(result), caption)])]


def draw(result: Result) -> Figure:
    """Defects over s_tag on a log scale, with the proved band."""
    canvas, (axes,) = figure(8.2, 4.8)
    s = result.s_tag
    axes.fill_between(
        s, result.after_lower, result.after_bound, color=BLUE, alpha=0.18, label="proved"
    )
    axes.semilogy(s, result.after, color=BLUE, label="after [SEP], the worst row")
    if result.config.t > 1:
        seen = result.itself > 1e-300
        axes.plot(s, result.itself_exact, color=RED, label=r"[SEP]: $(t-1)/(t-1+e^{s(s-1)})$")
        axes.plot(s[seen], result.itself[seen], ".", color=INK, label="[SEP], transformer")
    axes.plot(s, np.exp(-s), ":", color=ORANGE, label=r"$e^{-s}$")
    axes.set_ylim(1e-16, 3)
    axes.set(xlabel=r"$s_\mathrm{tag}$", ylabel="1 - attention on [SEP]", title="layer 1")
    axes.legend(fontsize=9, loc="lower left")
    return canvas
