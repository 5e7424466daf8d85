"""How many sinks a sequence has: the table, the grid over layers and heads, and what they say."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from experiments import pictures
from experiments.intervals import Interval
from experiments.report import Picture, Section, Table
from mech.probes.sinks import SUPPORT

BUSIEST = 8
"""Layers to name."""


def section(
    first: Interval,
    later: Interval,
    raw: Interval,
    first_grid: Float[np.ndarray, "layer head"],
    later_grid: Float[np.ndarray, "layer head"],
    *,
    epsilon: float,
    seq: int,
    text: str,
) -> Section:
    """Counts a sequence with intervals over sequences, and where in the model the sinks are."""
    n, heads = first.n, first_grid.size
    table = Table(
        ("sinks a sequence", "mean", "95% interval"),
        [
            ("first token", f"{first.mean:.1f} of {heads} heads", _span(first)),
            ("later tokens, guarded", f"{later.mean:.1f}", _span(later)),
            ("all, as the papers count", f"{raw.mean:.1f}", _span(raw)),
        ],
        f"Keys that receive more than {epsilon} of the attention on average (equation 1 of Gu et "
        f"al. 2025, arXiv:2410.10781), every query head of every layer, n = {n} sequences of {seq} "
        f"tokens of {text}, bootstrap intervals over sequences. Guarded: the last {SUPPORT} tokens "
        "are left out, where any head that looks at its neighbours passes the threshold. In layers "
        "with a window the mean is over the queries that see the key, and keys that few see are "
        "left out.",
    )
    picture = Picture(
        "sink-grid",
        pictures.sink_grid(first_grid, later_grid),
        f"Sinks by layer and head, n = {n} sequences of {seq} tokens.",
    )
    words = [*in_words(first, later, raw, later_grid, heads, epsilon)]
    return Section("Attention sinks in a real language model", words, [table], [picture])


def in_words(
    first: Interval,
    later: Interval,
    raw: Interval,
    later_grid: Float[np.ndarray, "layer head"],
    heads: int,
    epsilon: float,
) -> Iterator[str]:
    """The counts as sentences; a model may have no sinks at all."""
    if raw.mean == 0:
        yield f"No token of any head receives more than {epsilon} of the attention."
        return
    artefact = 1 - (first.mean + later.mean) / raw.mean
    yield (
        f"The first token is a sink in {first.mean / heads:.0%} of the heads. "
        f"{artefact:.0%} of what equation 1 counts lies in the last 16 tokens of the sequence "
        "and says nothing about sinks."
    )
    by_layer = later_grid.sum(axis=1)
    if by_layer.sum() > 0:
        # A layer without any is not among those with most.
        ranked = np.argsort(-by_layer, kind="stable")[:BUSIEST]
        busiest = np.sort(ranked[by_layer[ranked] > 0])
        share = by_layer[busiest].sum() / by_layer.sum()
        yield (
            f"The {len(busiest)} layers with most later sinks, "
            f"{', '.join(map(str, busiest.tolist()))}, hold {share:.0%} of them."
        )


def _span(found: Interval) -> str:
    return f"{found.low:.1f} to {found.high:.1f}"
