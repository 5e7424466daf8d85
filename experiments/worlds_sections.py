"""What the four worlds show, in tables, two scatter plots and one sentence."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from experiments.intervals import Interval
from experiments.report import BLUE, GREEN, ORANGE, Picture, Section, Table
from experiments.worlds import is_sink, paired
from mech.probes.spectra import effective_rank, energy_rank, stable_rank

if TYPE_CHECKING:
    from experiments.worlds import Result
    from experiments.worlds_read import World

COUNTS = {
    "effective rank": effective_rank,
    "stable rank": stable_rank,
    "directions with 90% of the energy": energy_rank,
}
MATRICES = {"W_Q W_Kᵀ": ("QK", "QK_random"), "W_V W_O": ("OV", "OV_random")}
EXACT = 1e-6  # rounding of float64 through a basis of condition 30


def sections(result: "Result") -> list[Section]:
    """The answer first, then what it rests on."""
    model = result.worlds[-1]
    text = [
        *(_answer(model, name, result.config.epsilon) for name in MATRICES),
        "Heads are compared within a layer (in a toy, within a seed), and the interval is over "
        f"these; a sink head gives the sink more than {result.config.epsilon:g} of its attention. "
        "Queries and keys are taken without rotary positions, which is what a token asks of "
        "itself and of no other distance.",
    ]
    tables = [_masses(result), _ranks(result), _gauges(result)]
    return [Section("Toy and language model, by the same probes", text, tables, [_picture(result)])]


def _answer(world: "World", name: str, epsilon: float) -> str:
    """Whether sink heads have the lower effective rank, as it came out."""
    values = effective_rank(getattr(world, MATRICES[name][0]))
    found = paired(world, values, epsilon)
    if found is None:
        return f"{world.name}: too few layers have both kinds of head to compare {name}."
    verdict = "no difference is shown between sink heads and others"
    if found.high < 0:
        verdict = "sink heads have lower effective rank than others"
    if found.low > 0:
        verdict = "sink heads have higher effective rank than others"
    return (
        f"{world.name}, {name}: {verdict} ({found} directions of {values.mean():.1f}, mean over "
        f"{found.n} layers that have both kinds)."
    )


def _masses(result: "Result") -> Table:
    rows = []
    for world in result.worlds:
        sink = is_sink(world, result.config.epsilon)
        rows.append(
            (
                f"{world.name}: {world.sink}",
                f"{sink.sum()} of {len(sink)}",
                _pair(world.mass, sink),
                _pair(world.tag, sink),
                _shown(paired(world, world.tag, result.config.epsilon)),
            )
        )
    return Table(
        (
            "world and its sink",
            "sink heads",
            "mass on the sink: sink heads / others",
            "tag over stream: sink heads / others",
            "difference within a group",
        ),
        rows,
        "Mass: attention that queries after the sink give it. Tag: length of what the sink's value "
        "adds to a query through W_O, over the length of the query's stream. Means over heads; "
        f"{result.found} of {result.config.seeds} trained toys found the mechanism and are read. "
        "The theorem's weights are one model, not a sample.",
    )


def _ranks(result: "Result") -> Table:
    rows = []
    for world in result.worlds:
        sink = is_sink(world, result.config.epsilon)
        for name, (own, random) in MATRICES.items():
            for count, rank in COUNTS.items():
                values, null = rank(getattr(world, own)), rank(getattr(world, random))
                rows.append(
                    (
                        world.name,
                        name,
                        count,
                        _pair(values, sink),
                        _shown(paired(world, values, result.config.epsilon)),
                        f"{null.mean():.3g}",
                    )
                )
    return Table(
        (
            "world",
            "matrix",
            "measure",
            "sink heads / others",
            "difference within a group",
            "random matrices",
        ),
        rows,
        "Means over heads. Differences: sink heads less others within a layer (a toy: within a "
        "seed), mean and 95% interval over n groups that have both. Random: Gaussian factors of "
        "the same shapes. The two toys with one head a layer compare their layers, of which the "
        "first has W_Q = W_K = I by construction: that its sink head has full rank is no finding.",
    )


def _gauges(result: "Result") -> Table:
    rows = [
        (
            name,
            f"{moved.basis:.2g}",
            f"{moved.gain:.2g}",
            "yes" if max(moved.basis, moved.gain) < EXACT else "no",
        )
        for name, moved in result.moved.items()
    ]
    heads = next(iter(result.moved.values())).heads
    return Table(
        ("effective rank of", "another basis in the head", "gain shared otherwise", "invariant"),
        rows,
        f"Largest relative change over {heads} heads of the language model under two changes that "
        "leave every head's function as it was. Mass and tag are taken from what the heads "
        "compute and change with neither; but the tag is measured against the stream, and the toy "
        "has families of weights of the same function in which it is large or small "
        "(docs/theory.md): of mass, ranks and tag only the tag can be moved so.",
    )


def _pair(values: np.ndarray, sink: np.ndarray) -> str:
    return " / ".join(f"{values[s].mean():.3g}" if s.any() else "–" for s in (sink, ~sink))


def _shown(found: Interval | None) -> str:
    return "–" if found is None else f"{found}, n = {found.n}"


def _picture(result: "Result") -> Picture:
    world = result.worlds[-1]
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    for axes, (name, (own, random)) in zip(figure.subplots(1, 2), MATRICES.items(), strict=True):
        values, null = effective_rank(getattr(world, own)), effective_rank(getattr(world, random))
        sink = is_sink(world, result.config.epsilon)
        axes.scatter(world.mass[~sink], values[~sink], s=9, color=BLUE, label="other heads")
        axes.scatter(world.mass[sink], values[sink], s=9, color=ORANGE, label="sink heads")
        axes.axhline(null.mean(), color=GREEN, linestyle="--", label="random matrices")
        axes.set(title=name, xlabel="attention on the first token", ylabel="effective rank")
        axes.set_ylim(0, None)
    figure.axes[0].legend()
    return Picture(
        "worlds-ranks",
        figure,
        f"Every head of {world.name}: how many directions its products have, against how much "
        "attention it gives the first token.",
    )
