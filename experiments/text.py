"""Human text that every install has: the prose of installed libraries' documentation strings."""

import ast
import hashlib
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from experiments.provenance import sha256_text

# Another text on Python 3.11 than later: numpy.distutils is installed up to there.
LIBRARIES = ("numpy", "scipy", "torch")
SHORTEST = 400  # characters; shorter strings are mostly signatures
ENOUGH = 1_200_000  # characters in all, several times what any experiment here reads
Half = Literal["calibration", "evaluation"]


class Text(NamedTuple):
    """A text, where it came from, and the SHA-256 of its bytes."""

    text: str
    source: str
    sha256: str


class UnreadableText(ValueError):
    """A text file that cannot be used; the message says why."""


def read_text(file: Path | None, half: Half) -> Text:
    """The file's text, or the given half of the documentation strings when there is no file.

    The two halves share no string: what is calibrated on is never evaluated on. A file of the
    user's is cut in the middle, for the same reason.

    Raises:
        UnreadableText: the file is missing, is not UTF-8, or is empty.
    """
    if file is None:
        text = "\n\n".join(_documentation()[half])
        source = f"documentation strings of {', '.join(LIBRARIES)} ({half} half)"
        return Text(text, source, sha256_text(text))
    try:
        whole = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableText(f"{file} is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise UnreadableText(f"cannot read {file}: {error.strerror}") from error
    if not whole.strip():
        raise UnreadableText(f"{file} is empty")
    middle = len(whole) // 2
    text = whole[:middle] if half == "calibration" else whole[middle:]
    return Text(text, f"{file} ({half} half)", sha256_text(text))


@cache
def _documentation() -> dict[Half, tuple[str, ...]]:
    """Every long documentation string once, in an order that depends on its bytes alone."""
    prose: set[str] = set()
    for file in _files():
        prose |= {p for p in _strings(file) if len(p) >= SHORTEST}
        if sum(map(len, prose)) >= ENOUGH:
            break
    ranked = sorted(prose, key=_rank)
    return {"calibration": tuple(ranked[::2]), "evaluation": tuple(ranked[1::2])}


def _rank(name: str) -> bytes:
    """An order without meaning that is the same everywhere."""
    return hashlib.sha256(name.encode()).digest()


def _files() -> list[Path]:
    """Source files of the libraries (found, not imported), mixed."""
    found = {}
    for library in LIBRARIES:
        spec = importlib.util.find_spec(library)
        if spec is not None and spec.origin is not None:
            root = Path(spec.origin).parent
            for path in root.rglob("*.py"):
                name = path.relative_to(root.parent).as_posix()
                if "/test" not in name:
                    found[name] = path
    return [found[name] for name in sorted(found, key=_rank)]


def _strings(file: Path) -> Iterator[str]:
    source = file.read_text(encoding="utf-8", errors="replace")
    for node in ast.walk(_parsed(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield _prose(ast.get_docstring(node) or "")


def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError:  # templates and files for other Pythons
        return ast.Module(body=[], type_ignores=[])


def _prose(docstring: str) -> str:
    """The sentences of a documentation string: no examples, no tables, no section rules."""
    body = re.split(r"\n(?:Examples|References|See Also)\s*\n", docstring)[0]
    keep = [
        line.strip()
        for line in body.splitlines()
        if line.strip() and not re.search(r">>>|\.\.\.|={3}|-{3}|\|", line)
    ]
    return " ".join(keep)
