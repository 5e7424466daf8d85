"""A run as one page: sections of text, pictures and tables, in one file that needs nothing else."""

import base64
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jinja2
import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure

from experiments.film import Film

# Okabe and Ito's palette: told apart by colour-blind readers and in print.
INK, BLUE, ORANGE, GREEN, RED, SKY, PINK = (
    "#222222", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7",
)  # fmt: skip
mpl.rcParams.update(
    {
        "figure.dpi": 110,
        "savefig.dpi": 160,
        "savefig.bbox": "tight",
        "font.size": 11,
        "axes.titlesize": 12,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#666666",
        "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, RED, SKY, PINK]),
        "legend.frameon": False,
        "image.interpolation": "nearest",
        "svg.fonttype": "none",
        "svg.hashsalt": "catch-tag-release",  # the same picture has the same bytes
    }
)


class Kept(NamedTuple):
    """A picture that an earlier run drew: the path of its files without the suffix."""

    stem: Path

    def savefig(self, path: Path, metadata: Mapping[str, None] | None = None) -> None:
        """Copy the file of the same suffix; as `Figure.savefig`."""
        # Not Path.with_suffix: a name may hold a dot.
        shutil.copyfile(f"{self.stem}{path.suffix}", path)


class Picture(NamedTuple):
    """A figure or a film, the name of its files, and what to see in it."""

    name: str
    figure: Figure | Film | Kept
    caption: str


class Page(NamedTuple):
    """A page of its own beside the report: its file, its whole HTML, and what can be done there."""

    file: str
    html: str
    caption: str


class Table(NamedTuple):
    """Rows of text under column names."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def worded(self) -> list[bool]:
        """Per column, whether most of its cells are words: those are set flush left, and wrap."""
        columns = zip(*self.rows, strict=True)
        return [2 * sum(map(_is_words, column)) > len(column) for column in columns]


@dataclass(frozen=True)
class Section:
    """One part of the page. `html` is for coloured text and is trusted: escape what goes in."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    html: str = ""
    pages: Sequence[Page] = ()


def _is_words(cell: str) -> bool:
    return sum(map(str.isalpha, cell)) > 12 and sum(map(str.isalpha, cell)) > len(cell) / 2


def write(folder: Path, title: str, sections: Sequence[Section], facts: dict[str, str]) -> None:
    """Write `report.html`, its pages, and every picture as PNG and SVG into `folder`.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    encoded = {}
    pictures = [picture for section in sections for picture in section.pictures]
    if pictures:
        (folder / "pictures").mkdir()
    for picture in pictures:
        stem = folder / "pictures" / picture.name
        # Without a date the same result gives the same file.
        picture.figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
        picture.figure.savefig(stem.with_suffix(".png"))
        encoded[picture.name] = base64.b64encode(stem.with_suffix(".svg").read_bytes()).decode()
    for section in sections:
        for beside in section.pages:
            (folder / beside.file).write_text(beside.html, encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("experiments"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        title=title, sections=sections, facts=facts, encoded=encoded
    )
    (folder / "report.html").write_text(page, encoding="utf-8")
