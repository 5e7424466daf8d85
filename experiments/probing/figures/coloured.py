"""Text whose tokens stand on the colours of their principal components, as a picture.

After figures 2 and 7 to 11 of Zhang & Papyan 2025 (arXiv:2502.00919).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.probing.figures.labels import MONO, visible
from experiments.report import INK

COLUMNS = 100
"""Characters in a line."""
SIZE = 9.0
"""Points of the letters; in this font 0.602 of it is a character's width."""
ADVANCE, ROW = 0.602 * SIZE / 72, 0.24  # inches
MARGIN = 0.15


class Coloured(NamedTuple):
    """One array of the trace: what it is, and a colour in [0, 1] a token."""

    what: str
    rgb: Float[np.ndarray, "seq 3"]


class Word(NamedTuple):
    """A token's place on the page, in characters and lines."""

    token: int
    row: int
    column: int
    text: str


def coloured_text(
    tokens: Sequence[str], panels: Sequence[Coloured], sinks: Int[np.ndarray, " sink"]
) -> Figure:
    """The text once for each array, one below the other; the sinks are framed and bold."""
    words = list(laid_out(tokens))
    rows = words[-1].row + 1
    height = (len(panels) * (rows + 1.7) - 0.6) * ROW + 2 * MARGIN
    canvas = Figure(figsize=(COLUMNS * ADVANCE + 2 * MARGIN, height))
    axes = canvas.add_axes((0, 0, 1, 1))
    # One unit is one character across and one line down.
    axes.set_xlim(-MARGIN / ADVANCE, COLUMNS + MARGIN / ADVANCE)
    axes.set_ylim((height - MARGIN) / ROW, -MARGIN / ROW)
    axes.axis("off")
    for number, (what, rgb) in enumerate(panels):
        top = number * (rows + 1.7)
        axes.text(0, top + 0.62, what, fontsize=10, color=INK, va="center", parse_math=False)
        for word in words:
            _stand(axes, word, top + 1.1, rgb[word.token], word.token in sinks)
    return canvas


def laid_out(tokens: Sequence[str], columns: int = COLUMNS) -> Iterator[Word]:
    """Tokens in lines of `columns` characters; a break in the text is a sign, to save lines."""
    row = column = 0
    for index, token in enumerate(tokens):
        text = visible(token) or "␣"
        text = text if len(text) <= columns else f"{text[: columns - 1]}…"
        if column + len(text) > columns:
            row, column = row + 1, 0
        yield Word(index, row, column, text)
        column += len(text)


def _stand(
    axes: Axes, word: Word, top: float, colour: Float[np.ndarray, " 3"], framed: bool
) -> None:
    """One token on its colour, half way to white so that black letters can be read on it."""
    face = tuple(0.5 + 0.5 * float(c) for c in colour)
    box = Rectangle(
        (word.column, top + word.row + 0.06),
        len(word.text),
        0.88,
        facecolor=face,
        edgecolor=INK if framed else "white",
        linewidth=1.4 if framed else 0.4,
        zorder=2 if framed else 1,
    )
    axes.add_patch(box)
    axes.text(
        word.column,
        top + word.row + 0.54,
        word.text,
        family=MONO,
        fontsize=SIZE,
        fontweight="bold" if framed else "normal",
        color="black",
        va="center",
        zorder=3,
        parse_math=False,
    )
