"""What a look at caught tokens leaves: numbers and colours, no model."""

from typing import NamedTuple

import numpy as np

from experiments.intervals import Interval

DRAWS = 1000
"""Random cuts behind a null."""


class Colouring(NamedTuple):
    """Tokens coloured by the leading components of one array of the trace.

    share: part of the variance that each colour channel shows. eta2: share of the variance
    between groups of tokens with the same sink. null: median and 95% quantile of random cuts.
    """

    what: str
    rgb: np.ndarray
    share: np.ndarray
    eta2: float
    null: np.ndarray


class Prompted(NamedTuple):
    """What the prompt's pictures show; `sinks` are those of the pictured head."""

    tokens: list[str]
    layer: int
    head: int
    pattern: np.ndarray
    sinks: np.ndarray
    colourings: list[Colouring]


class Tagged(NamedTuple):
    """One head on text: η² minus the null's median, of what it reads, writes, and later."""

    layer: int
    head: int
    above_null: tuple[Interval, Interval, Interval]
