"""A token as a label: in one line, and only of characters that the font can draw."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Int
from matplotlib.axis import Axis
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font

from experiments.report import RED

MONO = "DejaVu Sans Mono"
"""Comes with matplotlib; every character is as wide as any other."""
LONGEST = 14
"""Characters of a label; a longer one is cut in the middle, where words differ least."""
NAMED = 64
"""Tokens that fit on an axis; of more, only some are named."""
_SIGNS = str.maketrans({"\n": "⏎", "\r": "⏎", "\t": "⇥", "\N{NO-BREAK SPACE}": "␣"})


@cache
def _drawable(letter: str) -> bool:
    """Whether the font has this character; a box in its place would say nothing."""
    return FT2Font(findfont(FontProperties(family=MONO))).get_char_index(ord(letter)) != 0


def visible(token: str) -> str:
    """The token in one line: breaks and tabs as signs, what cannot be drawn as its code point."""
    line = token.translate(_SIGNS)
    return "".join(c if c == " " or _drawable(c) else f"[{ord(c):X}]" for c in line)


def label(token: str, longest: int = LONGEST) -> str:
    """The token for an axis: no space around it, blank tokens as ␣, cut where it is too long."""
    shown = visible(token).strip(" ") or "␣"
    if len(shown) <= longest:
        return shown
    head = (longest - 1) // 2
    return f"{shown[:head]}…{shown[len(shown) - (longest - 1 - head) :]}"


def name_tokens(
    axis: Axis, tokens: Sequence[str], marked: Int[np.ndarray, " marked"], *, rotation: float = 0
) -> None:
    """Ticks with tokens, the marked ones red; where there are too many, only some others."""
    at = chosen(len(tokens), marked)
    size = 8.5 if len(at) <= 40 else 6.5
    # A token may hold dollars, which are no mathematics here.
    axis.set_ticks(
        at, [label(tokens[i]) for i in at], rotation=rotation, fontsize=size, parse_math=False
    )
    for place, tick in zip(at, axis.get_ticklabels(), strict=True):
        if place in marked:
            tick.set(color=RED, fontweight="bold")


def chosen(tokens: int, marked: Int[np.ndarray, " marked"]) -> list[int]:
    """Places to name: all of up to NAMED tokens, else the marked ones and others between them."""
    if tokens <= NAMED:
        return list(range(tokens))
    apart = -(-tokens // NAMED) + 1
    names = sorted({int(i) for i in marked})[:NAMED]
    for place in range(0, tokens, apart):
        if len(names) < NAMED and all(abs(place - other) >= apart for other in names):
            names.append(place)
    return sorted(names)
