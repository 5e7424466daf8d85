"""Checks a certificate: for all x in [-X, X]^T and (s, b, d) in the cell, |f - m| <= fraction * B.

By itself: `python -m toy.certify.check FILE`. It rebuilds every leaf from its path of halvings,
sees that the leaves fill the whole box, and encloses |f - m| / B on each, in arithmetic of its own
(`decimals`). It needs Python's standard library, and nothing of the prover.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from decimal import DecimalException
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from toy.certify.decimals import Box, Ends, Rejected, ratio, span

SCHEMA = "catch-tag-release certificate 1"
STATEMENT = (
    "for all x in [-X, X]^T and all s_tag in s, b in b, d in d: q_lo > 0 and |f - m| <= fraction * "
    "B(T, t, X; s_tag, b, d), B as in Theorem B"
)
KEYS = ["schema", "statement", "T", "t", "X", "s", "b", "d", "fraction", "leaves", "sha256"]
LARGEST, LONGEST, DEEPEST = 2**26, 512, 300  # bytes, T, halvings of a leaf
DIGITS, PLACES = 9, 40  # before the point, and behind
NUMBER = re.compile(rf"-?[0-9]{{1,{DIGITS}}}(\.[0-9]{{1,{PLACES}}})?", re.ASCII)


class Checked(NamedTuple):
    """What the file proves, and the largest |f - m| / B that its leaves allow."""

    T: int
    t: int
    X: Fraction
    s: Ends
    b: Ends
    d: Ends
    fraction: Fraction
    leaves: int
    ratio: Fraction
    sha256: str


def check(path: Path) -> Checked:
    """The statement of the file, proved again. Raises `Rejected`, `OSError`."""
    content = read(path)
    T, t, leaves = content["T"], content["t"], content["leaves"]
    X, fraction = number(content["X"]), number(content["fraction"])
    s, b, d = ((number(content[name][0]), number(content[name][1])) for name in "sbd")
    if not 1 <= t < T <= LONGEST:
        raise Rejected(f"T = {T}, t = {t}: not 1 <= t < T <= {LONGEST}")
    if any(low > high for low, high in (s, b, d)):
        raise Rejected("an interval of s, b or d has its ends in the wrong order: it is empty")
    if not (X > 0 and fraction > 0 and s[0] > 1 and d[0] > 0):
        raise Rejected("X > 0, fraction > 0, s > 1 and d > 0 do not hold in the whole cell")
    box = {f"x{i}": (-X, X) for i in range(1, T + 1) if i != t} | {"s": s, "b": b, "d": d}
    steps = sorted(tuple(leaf.split(" ")) if leaf else () for leaf in leaves)
    for leaf, part in list(parts(steps, 0, box)):  # that they fill it is known before any of them
        claimed = number(leaves[" ".join(leaf)])
        try:
            found = ratio(T, t, X, part)
        except DecimalException as lost:
            raise Rejected(f"leaf {' '.join(leaf)!r}: an exponential is lost") from lost
        if not (found <= span(claimed).lo and claimed <= fraction):
            raise Rejected(
                f"leaf {' '.join(leaf)!r} claims {leaves[' '.join(leaf)]} of B, fraction is "
                f"{content['fraction']}: |f - m| may reach {found:.9g} of B there"
            )
    largest = max(map(number, leaves.values()))
    return Checked(T, t, X, s, b, d, fraction, len(leaves), largest, content["sha256"])


def parts(
    paths: Sequence[tuple[str, ...]], depth: int, box: Box
) -> Iterator[tuple[tuple[str, ...], Box]]:
    """Each leaf with its box; they fill `box` because every halving has both of its halves."""
    if len(paths) == 1 and len(paths[0]) == depth:
        yield paths[0], box
        return
    steps = {path[depth] if len(path) > depth else "" for path in paths}
    axis = min(steps, default="")[:-1]
    if depth > DEEPEST or axis not in box or steps != {axis + "-", axis + "+"}:
        raise Rejected(
            f"the leaves do not fill the box once: after {_short(' '.join(paths[0][:depth]))!r} "
            f"come {_short(', '.join(map(repr, sorted(steps))))}"
            if paths
            else "the leaves do not fill the box once: there is none"
        )
    low, high = box[axis]
    middle = (low + high) / 2
    for sign, half in (("-", (low, middle)), ("+", (middle, high))):
        below = [path for path in paths if path[depth] == axis + sign]
        yield from parts(below, depth + 1, {**box, axis: half})


def read(path: Path) -> dict[str, Any]:
    """The content, if the bytes are exactly those that it is written with."""
    if not path.is_file():
        raise Rejected(f"{path} is {'not an ordinary file' if path.exists() else 'not there'}")
    if path.stat().st_size > LARGEST:
        raise Rejected(f"{path} is larger than any certificate: more than {LARGEST} bytes")
    try:
        text = path.read_bytes().decode("ascii")
        content = json.loads(text)
    except (ValueError, RecursionError) as wrong:
        raise Rejected(f"{path} is no JSON in ASCII") from wrong
    if not isinstance(content, dict) or list(content) != KEYS:
        raise Rejected(f"{path} is no certificate: its keys must be {', '.join(KEYS)}")
    if (content["schema"], content["statement"]) != (SCHEMA, STATEMENT):
        raise Rejected(f"{path} is of another schema, or states something else")
    shapes = {"T": int, "t": int, "s": list, "b": list, "d": list, "leaves": dict}
    if any(type(content[key]) is not shape for key, shape in shapes.items()):
        raise Rejected(f"{path}: a value is not of the type that the schema gives it")
    if any(len(content[name]) != 2 for name in "sbd"):
        raise Rejected(f"{path}: s, b and d are pairs of numbers")
    if text != sealed({key: content[key] for key in KEYS[:-1]}):
        raise Rejected(f"{path} was changed after it was written: its bytes are not as sealed")
    return content


def sealed(content: dict[str, Any]) -> str:
    """The text of a certificate, the sha256 of its content at the end."""
    digest = hashlib.sha256(json.dumps(content, indent=1).encode()).hexdigest()
    return json.dumps({**content, "sha256": digest}, indent=1) + "\n"


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:40]} ... {text[-40:]}"


def number(text: Any) -> Fraction:
    """A decimal as the format has it."""
    if not isinstance(text, str) or not NUMBER.fullmatch(text):
        raise Rejected(f"{str(text)[:60]!r} is no decimal of the format")
    return Fraction(text)


def main(arguments: list[str]) -> None:
    """Say what the file proves; or why nothing, with exit code 1."""
    if len(arguments) != 1:
        sys.exit("usage: python -m toy.certify.check FILE")
    try:
        seen = check(Path(arguments[0]))
    except (Rejected, OSError) as refusal:
        sys.exit(f"refused: {refusal}")
    cell = ((name, *map(float, getattr(seen, name))) for name in "sbd")
    sides = ", ".join(f"{name} from {low:.12g} to {high:.12g}" for name, low, high in cell)
    sys.stdout.write(
        f"proved: {STATEMENT}\nwith T = {seen.T}, t = {seen.t}, X = {float(seen.X):.12g}, {sides}, "
        f"fraction {float(seen.fraction):.12g}: |f - m| <= {float(seen.ratio):.9g} B, on "
        f"{seen.leaves} leaves\n"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
