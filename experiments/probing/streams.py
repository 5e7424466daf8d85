"""How the stream's largest entries grow with depth, and which dimensions are large throughout."""

import numpy as np
from jaxtyping import Float, Int

from experiments import pictures
from experiments.report import Picture, Section

ORDINARY = 100.0
"""Tokens with an activation this many times the median are left out when features are sought."""
LISTED = 6
"""Outlier features to name."""


def section(
    ratio: Float[np.ndarray, " depth"],
    token: Int[np.ndarray, " depth"],
    dim: Int[np.ndarray, " depth"],
    features: dict[int, int],
    sequences: int,
) -> Section:
    """Peaks by depth; features: for each outlier dimension the number of depths that have it."""
    top = int(np.argmax(ratio))
    where = f"token {token[top]}, dimension {dim[top]}"
    often = sorted(features.items(), key=lambda item: -item[1])[:LISTED]
    listed = ", ".join(f"{d} (at {count} of {len(ratio)} depths)" for d, count in often) or "none"
    text = [
        f"The largest activation is {ratio[top]:,.0f} times its state's median, after "
        f"{top} blocks, at {where}. Outlier features, dimensions above six times the token's "
        "median at 95% of the ordinary tokens (those without an activation above 100 and above "
        f"{ORDINARY:.0f} times the median): {listed}.",
    ]
    picture = Picture(
        "outliers",
        pictures.depth_profile(ratio),
        "Largest over median magnitude of the residual stream by depth, largest of "
        f"{sequences} sequences.",
    )
    return Section("Outliers and massive activations", text, pictures=[picture])
