"""Everything that is claimed, each claim with the cases that could refute it.

A claim draws its own cases, random and adversarial, and returns one ratio for each: measured over
proved for an upper bound, proved over measured for a lower one, |difference| over the rounding
derived for that case for an equality. It holds where no ratio exceeds 1. docs/theory.md has the
proofs, each under a heading that is the claim's `source`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toy.errors import Refused
from toy.statements import sufficiency


class Claim(NamedTuple):
    """ratios(rng, n): at least n cases of the statement, which holds where all are <= 1."""

    statement: str  # one line of mathematics
    source: str  # the heading of its proof in docs/theory.md
    ratios: Callable[[np.random.Generator, int], Float[np.ndarray, " case"]]


class Found(NamedTuple):
    """What the cases of one claim came to."""

    cases: int
    violations: int  # ratios above 1, and ratios that are not numbers
    largest: float  # NaN if any is


def examine(claim: Claim, rng: np.random.Generator, n: int) -> Found:
    """Try one claim on at least n cases. A NaN is a violation, never a pass."""
    ratios = claim.ratios(rng, n)
    return Found(len(ratios), int((~(ratios <= 1)).sum()), float(ratios.max()))


def check(
    n: int,
    seed: int = 0,
    claims: Mapping[str, Claim] | None = None,
    advance: Callable[[str], None] | None = None,
) -> dict[str, Found]:
    """Try every claim on at least n cases; `advance` is called with the name of each when done.

    A claim's cases depend on the seed and on its name alone. Raises `Refused` unless n >= 1.
    """
    if n < 1:
        raise Refused(f"n = {n} cases prove nothing: ask for at least 1")
    found = {}
    for name, claim in (CLAIMS if claims is None else claims).items():
        found[name] = examine(claim, np.random.default_rng([seed, *name.encode()]), n)
        if advance is not None:
            advance(name)
    return found


CLAIMS: dict[str, Claim] = {
    "limit": Claim(
        "|f - m| <= 2X tanh(Delta/4) + (2t-1) X / (t-1 + n e^L)", "Theorem B", sufficiency.limit
    ),
    "corollary": Claim(
        "|f - m| <= (X/2)(T-1)(s-1)(d(s-1) + |b|X) e^{1+X^2-s} + (X(2t-1)/n) e^-L",
        "Corollary",
        sufficiency.corollary,
    ),
    "sink": Claim(
        "(1 + (i-2)e^{-X^2}) e^{1-s} <= r_i <= (i-1) e^{1+X^2-s}, 1 - A1[i, t] = r_i / (1 + r_i)",
        "Sink",
        sufficiency.sink,
    ),
    "sink of [SEP]": Claim(
        "1 - A1[t, t] = (t-1) / (t-1 + e^{s(s-1)})", "Sink", sufficiency.sink_of_sep
    ),
    "tag": Claim("tau_i = (s-1) A1[i, t], between (s-1) times its ends", "Tag", sufficiency.tag),
    "no tag before": Claim("tau_i = 0 for i < t", "Tag", sufficiency.no_tag_before),
    "[SEP] erased": Claim("-(s-1)(t-1) e^{-s(s-1)} <= tau_t <= 0", "Tag", sufficiency.sep_erased),
    "outlier feature": Claim(
        "|x_i| <= tau_i X / min tau, so that coordinate 1 leads where min tau > X",
        "Tag",
        sufficiency.outlier_feature,
    ),
    "uniform readout": Claim(
        "TV(A2[T, .], uniform after [SEP]) <= P + (1-P) tanh(Delta/4), P = t / (t + n e^L)",
        "Release",
        sufficiency.uniform_readout,
    ),
    "rank of W_V1": Claim("rank W_V1 = 1", "Closed form", sufficiency.rank_v1),
    "rank of W_QK": Claim("rank W_Q2 W_K2^T = 1", "Closed form", sufficiency.rank_qk),
}
