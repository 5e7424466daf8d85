"""Everything that is claimed, each claim with the cases that could refute it.

A claim draws its own cases, random and adversarial, and returns one ratio for each: measured over
proved for an upper bound, proved over measured for a lower one, |difference| over the rounding
derived for that case for an equality. It holds where no ratio exceeds 1. docs/theory.md has the
proofs, each under a heading that is the claim's `source`; the modules of `toy.statements` have the
formulas, each with the claims about them.
"""

from collections.abc import Callable, Mapping

import numpy as np

from toy.errors import Refused
from toy.statements import (
    alternatives,
    general_family,
    general_sink,
    last_segment,
    limits,
    logits,
    one_layer,
    ranks,
    sandwich,
    separators,
    sink_necessary,
    statistics,
    sufficiency,
    widths,
)
from toy.statements.claim import Claim, Found, examine

__all__ = ["CLAIMS", "Claim", "Found", "check", "examine"]

_BEYOND = {
    "C5: [SEP] subtracts": Claim(
        "|f - m| <= (T-1)/n (t-1 + e^{s(s-1)}) e^-G max|x|, for all real x and any s but 1",
        "Beyond family F",
        general_family.subtraction_errors,
    ),
    "C5: no sink": Claim(
        "A1[i, t] <= 1/(1 + e^{1-s} (1 + (t-1) e^{-X^2})) after [SEP]",
        "Beyond family F",
        general_family.subtraction_sinks,
    ),
    "N2' (i): the gain": Claim("G a >= Lam", "Beyond family F", general_sink.gain_forced),
    "N2' (ii): the sink": Claim(
        "1 - a <= (n-2 + t e^{z^2}) U / ((n-2) Lam), any s_num",
        "Beyond family F",
        general_sink.sink_forced,
    ),
    "N2' (iii): the outlier": Claim(
        "s_tag + |s_num| z >= 1 + log((n-2) Lam/U - t e^{z^2})",
        "Beyond family F",
        general_sink.scale_forced,
    ),
}

CLAIMS: dict[str, Claim] = {
    **sufficiency.CLAIMS,
    **ranks.CLAIMS,
    **one_layer.CLAIMS,
    **logits.CLAIMS,
    **sink_necessary.CLAIMS,
    **last_segment.CLAIMS,
    **sandwich.CLAIMS,
    **alternatives.CLAIMS,
    **separators.CLAIMS,
    **widths.CLAIMS,
    **statistics.CLAIMS,
    **limits.CLAIMS,
    **_BEYOND,
}


def check(
    n: int,
    seed: int = 0,
    claims: Mapping[str, Claim] = CLAIMS,
    advance: Callable[[str], None] | None = None,
) -> dict[str, Found]:
    """Try every claim on at least n cases; `advance` is called with the name of each when done.

    A claim's cases depend on the seed and on its name alone. Raises `Refused` unless n >= 1.
    """
    if n < 1:
        raise Refused(f"n = {n} cases prove nothing: ask for at least 1")
    found = {}
    for name, claim in claims.items():
        found[name] = examine(claim, np.random.default_rng([seed, *name.encode()]), n)
        if advance is not None:
            advance(name)
    return found
