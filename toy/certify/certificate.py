"""A proof as a file: the statement, and every leaf with what |f - m| / B does not exceed on it.

The format is the checker's (`check`); docs/certificates.md describes it. A number is written as the
finite decimal that it is, never rounded: the file says what was proved.
"""

import os
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from toy.certify import check
from toy.certify.boxes import PARAMETERS, Statement
from toy.certify.prove import Proof
from toy.errors import Refused


def text_of(proof: Proof) -> str:
    """The file's text; equal proofs give equal bytes. Raises `Refused` (see `decimal_text`)."""
    leaves = {" ".join(leaf.path): decimal_text(leaf.ratio) for leaf in proof.leaves}
    return check.sealed({**stated(proof.statement), "leaves": leaves})


def stated(statement: Statement) -> dict[str, Any]:
    """What the file says before its leaves. Raises `Refused` (see `decimal_text`)."""
    return {
        "schema": check.SCHEMA,
        "statement": check.STATEMENT,
        "T": statement.T,
        "t": statement.t,
        "X": decimal_text(statement.X),
        **{p: [decimal_text(end) for end in getattr(statement, p)] for p in PARAMETERS},
        "fraction": decimal_text(statement.fraction),
    }


def decimal_text(value: Fraction) -> str:
    """The value in decimal digits, exactly.

    Raises `Refused` for a number that has none, such as 1/3, or more than the format holds.
    """
    places = 0
    while places <= check.PLACES and (value * 10**places).denominator != 1:
        places += 1
    digits = str(abs(value * 10**places)) if places <= check.PLACES else ""
    text = f"{digits[:-places].zfill(1)}.{digits[-places:].zfill(places)}" if places else digits
    text = "-" * (value < 0) + text
    if not check.NUMBER.fullmatch(text):
        raise Refused(
            f"{Decimal(value.numerator) / value.denominator:.6g} cannot stand in a certificate, "
            f"which is exact: it wants a decimal with at most {check.DIGITS} digits before the "
            f"point and {check.PLACES} behind"
        )
    return text


def write(path: Path, text: str) -> check.Checked:
    """Put the text at `path` once the checker has confirmed it; another certificate is replaced.

    Raises `Refused` where `path` holds anything else or cannot be written, `Rejected` by the
    checker; nothing has changed at `path` then.
    """
    check_free(path)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("x", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        confirmed = check.check(partial)
        partial.replace(path)
    except OSError as error:
        raise Refused(
            f"cannot write {path}: {error.strerror}; nothing was kept, choose another place"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return confirmed


def check_free(path: Path) -> None:
    """Refuse a place that holds anything but a certificate, or is shut. Raises `Refused`."""
    if not path.parent.is_dir():
        raise Refused(f"{path.parent} is no folder: make it, or choose another place")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise Refused(f"cannot write {path}: its folder is read-only; choose another place")
    if not path.exists() and not path.is_symlink():
        return
    start = f'{{\n "schema": "{check.SCHEMA}"'
    if path.is_symlink() or not path.is_file():
        raise Refused(f"{path} is not an ordinary file: choose another place")
    with path.open("rb") as file:
        if file.read(len(start)) != start.encode():
            raise Refused(f"{path} holds something else than a certificate: choose another place")
