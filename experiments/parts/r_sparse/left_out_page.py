"""Table and picture of how many directions the biases of left-out inputs have."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from experiments.intervals import interval, of_few
from experiments.parts.r_sparse.maps_page import by_role
from experiments.pictures import figure
from experiments.report import Picture, Table

Counts = Mapping[str, Float[np.ndarray, "samples ways counts"]]


def table(found: Counts, ways: Sequence[str], counts: Sequence[str]) -> Table:
    """A row a role and way, a column a count."""
    rows = [
        (role, way, *(str(interval(values[:, row, i])) for i in range(len(counts))))
        for role, values in by_role(found).items()
        for row, way in enumerate(ways)
    ]
    caption = "Shares of d_out; means over blocks, 95% intervals over samples."
    return Table(("linear", "of", *counts), rows, caption + of_few(len(next(iter(found.values())))))


def picture(found: Counts, ways: Sequence[str]) -> Picture:
    """The stable rank by role, a mark a way, logarithmic."""
    canvas, (axes,) = figure(8.2, 4.2)
    roles = by_role(found)
    for row, way in enumerate(ways):
        means = [float(values[:, row, 0].mean()) for values in roles.values()]
        axes.semilogx(means, np.arange(len(roles)), "os^D"[row % 4], label=way, alpha=0.85)
    axes.set_yticks(range(len(roles)), list(roles))
    axes.invert_yaxis()
    axes.axvline(400 / 4096, color="#888888", linewidth=0.8, linestyle=":", label="the paper")
    axes.set(xlabel="stable rank / d_out", title="stable rank of what left-out inputs add")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    caption = (
        "Means over blocks and samples. Mixed: every channel's tokens in an order of its own. "
        "Whole: the output. Random: Gaussian inputs and weight."
    )
    return Picture("stable-rank", canvas, caption)
