"""What the variants of `terms` are called: known without torch, which `--help` does not load."""

DENSE = "dense"
BOTH = "sparse + low rank (OATS)"
SPARSE = "low rank off: OATS' sparse term alone"
LOW = "sparse off: OATS' low-rank term alone"
NEITHER = "both off: zero"
PLAIN = "control: plain sparse, as many nonzeros"
RANDOM = "control: sparse term + random low rank"
OUTPUTS = "control: sparse term + low rank with its outputs permuted"
INPUTS = "control: sparse term + low rank with its inputs permuted"
TOP = "dense minus the top component of the scaled matrix"
PROJECTION = "control: dense minus a random rank-4 projection of the outputs"
NORM = "control: dense minus a random component of equal scaled norm"
AS_FAR = "control: plain sparse, at most as much removed as without the low rank"


def wanda(density: float) -> str:
    """Plain Wanda at a density."""
    return f"plain sparse, {100 * density:.10g}% kept"
