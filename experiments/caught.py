"""What a look at caught tokens leaves: numbers and colours, no model."""

from typing import NamedTuple

import numpy as np

from experiments.intervals import Interval
from experiments.probing.figures.stems import Stem
from experiments.probing.figures.timelines import Levels, Rows

DRAWS = 1000
"""Random cuts behind a null."""
TAIL = 8
"""Tokens at the end of a prompt below 64 tokens that nearly every head seems to attend to."""
SUPPORT = 16
"""The same of a longer prompt, as where sinks are counted on text."""


def tail(seq: int) -> int:
    """How many tokens at the end are never called sinks."""
    return TAIL if seq < 64 else SUPPORT


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


class Control(NamedTuple):
    """The head of the same block that rests least on the pictured head's sinks."""

    head: int
    pattern: np.ndarray
    colouring: Colouring


class Caught(NamedTuple):
    """The pictured head: its sinks, its pattern (tiled where the prompt is long), its colours.

    colourings: what the head reads, what it writes, and the stream some blocks later. control is
    None in a block of one head.
    """

    layer: int
    head: int
    sinks: np.ndarray
    pattern: np.ndarray
    colourings: list[Colouring]
    control: Control | None
    stems: list[Stem]


class Prompted(NamedTuple):
    """What the prompt's pictures show; caught is None where the first token is no head's sink.

    bos: what was decided about the first token.
    """

    bos: str
    tokens: list[str]
    levels: Levels
    rows: Rows
    caught: Caught | None


class Tagged(NamedTuple):
    """One head on text: η² minus the null's median, of what it reads, writes, and later."""

    layer: int
    head: int
    above_null: tuple[Interval, Interval, Interval]
