"""The probes of language models, unchanged, on a trained larger toy."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mech.probes import catch, massive, outliers, segments, sinks
from mech.trace import Trace

NULL_DRAWS = 200  # random cuts beside the cut at [SEP]


class Probed(NamedTuple):
    """What the probes say of one seed; means over sequences. [SEP] stands in the same place t.

    alpha: the sink score of [SEP]. other_sinks: how many other tokens of a sequence pass for a
    sink (first token and guarded later ones). eta and null: share of the stream's variance after
    layer 1 between the two sides of [SEP], and between the sides of random cuts; above counts
    the sequences whose eta is over 95% of its null. agreement: share of tokens whose first
    principal component tells their side.
    """

    alpha: Float[np.ndarray, "layer head"]
    sep_sinks: Float[np.ndarray, "layer head"]
    other_sinks: Float[np.ndarray, "layer head"]
    outlier_dims: Float[np.ndarray, " depth"]
    massive: int
    peak: Float[np.ndarray, " depth"]
    eta: float
    null: float
    above: float
    agreement: float


def probe(trace: Trace, t: int) -> Probed:
    """Every probe of one seed's trace; t counts from 1."""
    alpha = sinks.score(sinks.received_of(trace))
    sep = t - 1
    seen = sinks.sinks(alpha)
    count = sinks.count_sinks(alpha)
    here = seen[..., sep].mean(axis=1)
    cuts = [_cut(stream, t) for stream in trace.resid[1]]
    everywhere = np.ones(trace.resid.shape[:3], dtype=bool)
    return Probed(
        alpha=alpha[..., sep].mean(axis=1),
        sep_sinks=here,
        other_sinks=count.first + count.later - here,
        outlier_dims=outliers.outlier_dims(trace.resid, everywhere).sum(axis=1).astype(float),
        massive=len(massive.massive(trace.resid).value),
        peak=massive.peaks(trace.resid).ratio.astype(float),
        eta=float(np.mean([cut[0] for cut in cuts])),
        null=float(np.mean([cut[1] for cut in cuts])),
        above=float(np.mean([cut[2] for cut in cuts])),
        agreement=float(np.mean([cut[3] for cut in cuts])),
    )


def _cut(stream: Float[np.ndarray, "seq d"], t: int) -> tuple[float, float, bool, float]:
    """eta at [SEP], mean eta of random cuts, whether it is above 95% of them, and agreement."""
    numbers = np.delete(stream, t - 1, axis=0)
    side = np.arange(len(numbers)) >= t - 1
    eta = catch.variance_explained(numbers, side.astype(int))
    null = catch.contiguous_null(numbers, 2, draws=NULL_DRAWS)
    first = segments.segments(numbers, 2).colour[:, 0] > 0.5
    right = float((first == side).mean())
    return eta, float(null.mean()), bool((null < eta).mean() > 0.95), max(right, 1 - right)
