"""Which code an experiment's answer is a function of, as a hash."""

import ast
import hashlib
import importlib
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent
LIBRARIES = {"toy": "toy", "mech": "mech", "bridge": "bridge", "ctr_kernels": "kernels"}
# Words on claims and lists of experiments: they name what is asked and change no number.
_WORDS = ("experiments/ledger/", "experiments/papers/roster.py")


def sources(module: ModuleType) -> str:
    """SHA-256 of the module's file, of every file of experiments/ that it or those import, in
    functions too, and of all of `toy`, `mech`, `bridge` and the kernels where any is imported.

    Of a module of the user's also its whole package, or where it is in none the files beside it
    that it or those import.
    """
    start = Path(str(module.__file__)).resolve()
    users = not start.is_relative_to(ROOT / "experiments")
    top = start.parents[module.__name__.count(".")] if users else ROOT
    found, libraries = set(), set()
    left = [start, *(_package(top / module.__name__.split(".")[0]) if users else [])]
    while left:
        file = left.pop()
        if file in found:
            continue
        found.add(file)
        for name in _imported(file):
            package = name.split(".")[0]
            if package in LIBRARIES:
                libraries.add(package)
            elif package == "experiments":
                left += _files(name)
            elif users:
                left += _files(name, top)
    named = {_name(f, top): f for f in found}
    lines = [f"{n} {_digest(f)}" for n, f in sorted(named.items()) if not n.startswith(_WORDS)]
    lines += [f"{package} {_library(package)}" for package in sorted(libraries)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@cache
def _imported(file: Path) -> frozenset[str]:
    """Dotted names that a file imports, anywhere in it; `from a import b` gives a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return frozenset(names)


def _name(file: Path, top: Path) -> str:
    """The file's name from the folder that it is imported from: the same on any machine."""
    return str(file.relative_to(ROOT if file.is_relative_to(ROOT) else top))


def _package(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py")) if (folder / "__init__.py").is_file() else []


def _files(name: str, top: Path = ROOT) -> list[Path]:
    place = top.joinpath(*name.split("."))
    return [f for f in (place.with_suffix(".py"), place / "__init__.py") if f.is_file()]


@cache
def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@cache
def _library(package: str) -> str:
    # Where the package lies, by the name that its folder has in a checkout: a wheel calls the
    # kernels' folder ctr_kernels, and `kernels` beside it may be somebody else's.
    place = Path(next(iter(importlib.import_module(package).__path__))).resolve()
    name = LIBRARIES[package]
    lines = [f"{name}/{f.relative_to(place)} {_digest(f)}" for f in sorted(place.rglob("*.py"))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
