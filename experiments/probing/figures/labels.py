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
    """Ticks with tokens, the marked ones red; where there are too many, only some others.

    Marked tokens too near for two names share one, at the first of them.
    """
    groups = chosen(len(tokens), marked)
    size = 8.5 if len(groups) <= 40 else 6.5
    names = [label(" ".join(label(tokens[i]) for i in group), 2 * LONGEST) for group in groups]
    # A token may hold dollars, which are no mathematics here.
    axis.set_ticks(
        [group[0] for group in groups], names, rotation=rotation, fontsize=size, parse_math=False
    )
    for group, tick in zip(groups, axis.get_ticklabels(), strict=True):
        if group[0] in marked:
            tick.set(color=RED, fontweight="bold")


def chosen(tokens: int, marked: Int[np.ndarray, " marked"]) -> list[list[int]]:
    """Places to name, in groups that share a name: each of up to NAMED tokens by itself.

    Of more, the marked ones and others between them, no two names nearer than there is room.
    """
    if tokens <= NAMED:
        return [[place] for place in range(tokens)]
    apart = -(-tokens // NAMED) + 1
    groups: list[list[int]] = []
    for place in sorted({int(i) for i in marked}):
        if groups and place - groups[-1][0] < apart:
            groups[-1].append(place)
        else:
            groups.append([place])
    taken = [group[0] for group in groups]
    for place in range(0, tokens, apart):
        if all(abs(place - other) >= apart for other in taken):
            groups.append([place])
    return sorted(groups)
