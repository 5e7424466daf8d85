"""What the pages show: command lines, blocks of code, links."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
WHOLE = [DOCS / "index.md", DOCS / "tour.md", *sorted((DOCS / "tasks").glob("*.md"))]
"""Pages whose commands are run as well as parsed; the others ask for hours."""

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
_INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )?ctr [^`]*)`")
_PLACEHOLDERS = re.compile(r"…|\.\.\.|\b[A-Z_]{2,}\b(?!=)|\b[A-Z]\b|/N\b")


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Fenced blocks, with the line they begin in."""
    text = page.read_text()
    return [
        Block(page, text[: found.start()].count("\n") + 1, found[1], found[2])
        for found in _BLOCK.finditer(text)
    ]


def shell(page: Path) -> list[str]:
    """Lines of `sh` blocks and of blocks by indentation that begin with a command of ours."""
    text = page.read_text().replace("\\\n", " ")
    indented = re.findall(r"^    ((?:[A-Z_]+=\S+ )?(?:ctr|python -m) .*)$", text, re.M)
    fenced = [line for block in blocks(page) if block.language == "sh" for line in _lines(block)]
    return [*fenced, *indented]


def _lines(block: Block) -> list[str]:
    code = block.code.replace("\\\n", " ")
    return [line for line in code.splitlines() if line.strip() and not line.startswith("#")]


def commands(page: Path) -> list[str]:
    """Every `ctr` line of a page, in blocks and in sentences; remarks in brackets are cut off."""
    shown = [line for line in shell(page) if re.match(r"([A-Z_]+=\S+ )?ctr\b", line)]
    said = [" ".join(line.split()) for line in _INLINE.findall(page.read_text())]
    said = [re.sub(r"\s*\((?:and|the)\b.*$", "", line) for line in said]
    lines = [re.sub(r"^[A-Z_]+=\S+ ", "", line) for line in [*shown, *said]]
    return list(dict.fromkeys(lines))


def illustrates(line: str) -> bool:
    """Whether it is no whole line: a word stands for the reader's own (MODEL, A, …), or a sentence
    names a command (`ctr rerun`) or an option (`ctr compress --method`) and no more."""
    named = re.fullmatch(r"ctr(?: [a-z][\w-]*){1,2}(?: --method)?", line)
    return bool(named or _PLACEHOLDERS.search(line.split("#")[0]))
