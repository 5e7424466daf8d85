"""Both error bounds against the worst error that a search finds, over the embedding scale."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments.figures.stages import refuse_bad_shapes
from experiments.pictures import figure
from experiments.progress import Progress
from experiments.provenance import Inputs
from experiments.report import BLUE, GREEN, INK, ORANGE, RED, Picture, Section, Table
from experiments.settings import between, within


@dataclass(frozen=True)
class Config:
    """One shape and one pair (b, d), many scales."""

    T: int = 12
    """Length of the sequence."""
    t: int = 5
    """Position of [SEP], from 1."""
    X: float = 1.5
    """Largest magnitude of a number."""
    d: float = 1.0
    """How much of the tag the query carries."""
    highest: float = 30.0
    """Largest s_tag."""
    scales: int = 30
    """How many scales."""
    starts: int = 16
    """Inputs that the search climbs from, at each scale."""
    seed: int = 0
    """What the search and the random inputs are drawn from."""


@dataclass(frozen=True)
class Result:
    """Errors and bounds at each scale; b = 0, so that every scale has a guarantee."""

    config: Config
    inputs: Inputs
    s_tag: Float[np.ndarray, " scale"]
    theorem: Float[np.ndarray, " scale"]
    sharper: Float[np.ndarray, " scale"]
    worst: Float[np.ndarray, " scale"]
    typical: Float[np.ndarray, " scale"]  # median of random inputs
    float32: Float[np.ndarray, " scale"]  # what a float32 transformer says of the worst input


def run(config: Config, progress: Progress) -> Result:
    """A search and two bounds at each scale.

    Raises:
        BadOption: options that make no curve.
    """
    from toy.adversary import worst_inputs
    from toy.bounds import error_bound
    from toy.position import position_bound
    from toy.theorem import residual
    from toy.transformer import forward, theorem_weights

    refuse_bad_shapes(config.T, config.t, config.X, config.seed)
    between("d", config.d, 0, 1e6)
    between("highest", config.highest, 2, 1e3)
    within("scales", config.scales, 2, 1000)
    within("starts", config.starts, 5, 1000)
    T, t, X = config.T, config.t, config.X
    random = np.random.default_rng(config.seed).uniform(-X, X, (1000, T))
    scales = np.linspace(1.5, config.highest, config.scales)
    rows = []
    with progress.task("scales", config.scales) as advance:
        for s in scales.tolist():
            at = {"s_tag": s, "d": config.d}
            x = worst_inputs(T, t, X, s, d=config.d, starts=config.starts, seed=config.seed)
            errors = np.abs(residual(x, t, **at))
            x = x[errors.argmax()]
            said = forward(theorem_weights(s, 0.0, config.d), x[None], t, dtype=np.float32)[0]
            rows.append(
                (
                    error_bound(T, t, X, **at),
                    position_bound(T, t, X, **at),
                    errors.max(),
                    np.median(np.abs(residual(random, t, **at))),
                    abs(float(said[0]) - x[t:].mean()),
                )
            )
            advance(f"s_tag {s:.1f}")
    return Result(config, Inputs(dtype="float64"), scales, *np.array(rows).T)


def sections(result: Result) -> list[Section]:
    """How far the bounds are from the worst error found, and typical errors from both."""
    says = (result.theorem < result.config.X) & (result.worst > 0)
    ratios = {
        "Theorem B": result.theorem[says] / result.worst[says],
        "sharper bound": result.sharper[says] / result.worst[says],
        "median of 1,000 random inputs": result.typical[says] / result.worst[says],
    }
    rows = []
    for name, ratio in ratios.items():
        low, middle, high = np.quantile(ratio, [0, 0.5, 1]) if says.any() else [np.nan] * 3
        rows.append((name, f"{middle:.3g}", f"{low:.3g} to {high:.3g}"))
    table = Table(
        ("over the worst error found", "median over scales", "range"),
        rows,
        f"n = {says.sum()} scales at which Theorem B is below X and the error not 0 in float64; "
        f"T = {result.config.T}, t = {result.config.t}, |x| ≤ {result.config.X:g}, "
        f"b = 0, d = {result.config.d:g}.",
    )
    text = [
        "A bound for all inputs is judged by the worst one. A typical input is far better, and a "
        "float32 transformer far too good: past saturation it reports rounding, not error.",
    ]
    caption = "Bounds, the worst error that a search finds, and what float32 says of that input."
    return [
        Section("Bound against error", text, [table], [Picture("bound", draw(result), caption)])
    ]


def draw(result: Result) -> Figure:
    """Five curves on a log scale."""
    canvas, (axes,) = figure(8.6, 5.0)
    for values, label, colour, line in (
        (result.theorem, "Theorem B", INK, "-"),
        (result.sharper, "sharper bound", GREEN, "-"),
        (result.worst, "worst error found", RED, "-"),
        (result.typical, "median of random inputs", BLUE, "-"),
        (result.float32, "worst input, float32 transformer", ORANGE, ":"),
    ):
        shown = values > 0
        axes.semilogy(result.s_tag[shown], values[shown], line, color=colour, label=label)
    axes.set(xlabel=r"$s_\mathrm{tag}$", ylabel="|output - mean|", title="bound against error")
    axes.legend(loc="lower left", fontsize=9)
    return canvas
