"""Tables and picture of how stable contributions and thresholds are over texts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from experiments.intervals import interval, of_few
from experiments.pictures import figure
from experiments.report import BLUE, GREEN, ORANGE, Picture, Table

if TYPE_CHECKING:
    from experiments.parts.r_sparse.thresholds import Served

Units = Mapping[str, Float[np.ndarray, " units"]]
_WORDS = {
    "samples": "two samples of it",
    "blocks": "two blocks, one sample",
    "domain": "it and the first text",
}


def distances(units: Units) -> Table:
    """A row a distance."""
    rows = []
    for name, values in units.items():
        what, _, domain = name.partition(", ")
        if what in _WORDS:
            rows.append((domain, _WORDS[what], str(interval(values)), str(len(values))))
    caption = (
        "½ Σ |M - M'| of sorted maps, mean over linears; 95% intervals over sequences or pairs."
    )
    return Table(("text", "between", "distance", "n"), rows, caption)


def served(first: str, found: "Mapping[str, Served]") -> Table:
    """A row a domain: what sparsity costs under its own thresholds and under the first text's."""
    rows = []
    for name, one in found.items():
        cost, more = interval(one.own - one.dense), interval(one.first - one.own)
        reads = f"{one.own_read:.2%}", f"{one.first_read:.2%}"
        rows.append((name, f"{one.dense.mean():.3f}", str(cost), str(more), *reads))
    columns = (
        "text", "dense, nats", "own thresholds, nats above", f"those of {first}, nats above own",
        "read, own", f"read, of {first}",
    )  # fmt: skip
    n = len(next(iter(found.values())).own)
    return Table(columns, rows, "95% intervals over windows, paired." + of_few(n))


def picture(units: Units) -> Picture:
    """Distances by text."""
    canvas, (axes,) = figure(8.6, 3.8)
    texts = list(dict.fromkeys(name.partition(", ")[2] for name in units))
    for (what, words), colour in zip(_WORDS.items(), (BLUE, ORANGE, GREEN), strict=True):
        for row, text in enumerate(texts):
            if f"{what}, {text}" in units:
                mean, low, high, _ = interval(units[f"{what}, {text}"])
                label = words if text == texts[-1] else None
                axes.plot([low, high], [row, row], color=colour, linewidth=3, alpha=0.5)
                axes.plot(mean, row, "o", color=colour, label=label)
    axes.set_yticks(range(len(texts)), texts)
    axes.invert_yaxis()
    axes.set_xlim(0)
    axes.set(xlabel="distance of maps, ½ Σ |M - M'|", title="the same linear, elsewhere")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), title="between")
    return Picture("stable", canvas, "Means over linears with 95% intervals.")
