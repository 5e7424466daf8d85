"""Table and picture of what stands in for left-out inputs; losses by "SPARSITY, WAY"."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from experiments.intervals import interval
from experiments.parts.curves import curves
from experiments.report import INK, Picture, Table

Units = Mapping[str, Float[np.ndarray, " windows"]]


def won_back(units: Units) -> dict[tuple[str, str], Float[np.ndarray, " windows"]]:
    """(nothing - way) / (nothing - dense) of every window, by sparsity and way."""
    found = {}
    for name, values in units.items():
        sparsity, _, way = name.partition(", ")
        if way:
            nothing = units[f"{sparsity}, nothing"]
            found[sparsity, way] = (nothing - values) / (nothing - units["dense"])
    return found


def table(units: Units) -> Table:
    """A row a sparsity and way."""
    rows = []
    for (sparsity, way), won in won_back(units).items():
        cost = units[f"{sparsity}, {way}"] - units["dense"]
        rows.append((sparsity, way, str(interval(cost)), str(interval(won))))
    caption = "Paired with the dense model and with 0 in place; 95% intervals over windows."
    return Table(
        ("left out", "in its place", "nats a token above dense", "won back"), rows, caption
    )


def picture(units: Units) -> Picture:
    """The share won back, a line a way."""
    shares = won_back(units)
    at, ways = (list(dict.fromkeys(key[i] for key in shares)) for i in (0, 1))
    drawn = curves(
        [float(sparsity.rstrip("%")) for sparsity in at],
        {way: [interval(shares[s, way]) for s in at] for way in ways if way != "nothing"},
        across="% of inputs left out",
        along="share of the loss won back",
        title="In place of what a threshold leaves out",
    )
    drawn.axes[0].axhline(0, color=INK, linewidth=0.8)
    caption = "0: as bad as leaving out, 1: as good as dense. By chance: the same constants, mixed."
    return Picture("phases", drawn, caption)
