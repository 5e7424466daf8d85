"""Catch and tag of a few heads as values of a sequence; and findings on them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from experiments.findings import Finding, Region
from experiments.intervals import interval
from experiments.probing.release import Marked

FEWEST = 6
"""Sequences that an interval rests on at least."""


def by_sequence(
    seen: Sequence[Sequence[Marked | None]],
) -> dict[str, Float[np.ndarray, " sequence"]]:
    """Means over the heads that are usable on a sequence; NaN where none is.

    caught: Σ_s A[q, s] over the queries after the first sink. writes, reads: ARI of k-means with
    the sinks, of what the heads write and of what they read, above random contiguous segments.
    eta2: η² of what they write, above them.
    """
    columns = [[each for each in column if each] for column in zip(*seen, strict=True)]
    read = {
        "caught": lambda m: m.share,
        "writes": lambda m: m.writes.ari - m.writes.ari_contiguous,
        "reads": lambda m: m.reads.ari - m.reads.ari_contiguous,
        "eta2": lambda m: m.writes.eta2 - m.writes.eta2_contiguous,
    }
    return {
        name: np.array(
            [np.mean([of(m) for m in column]) if column else np.nan for column in columns]
        )
        for name, of in read.items()
    }


def finding(
    claim: str,
    case: str,
    values: Float[np.ndarray, " unit"],
    unit: str,
    claimed: Region,
    control: str,
    over: str = "sequences",
    fewest: int = FEWEST,
) -> Finding:
    """Of the units that are not NaN; no effect where they are fewer than `fewest`."""
    found = values[~np.isnan(values)]
    if len(found) < fewest:
        note = f"{len(found)} {over} of {len(values)} can be judged: too few for an interval"
        return Finding(claim, case, None, unit, over, claimed, control, note)
    return Finding(claim, case, interval(found), unit, over, claimed, control)


def told(values: Float[np.ndarray, " unit"], fewest: int = FEWEST) -> str:
    """Mean and interval of the units that are not NaN, a dash where they are too few."""
    found = values[~np.isnan(values)]
    return str(interval(found)) if len(found) >= fewest else "–"
