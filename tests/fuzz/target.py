"""A loader of files as a function of bytes, and what it may say of them."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

Run = Callable[[bytes], None]
Mutate = Callable[[bytes, Any], bytes]


class Target(NamedTuple):
    """`make(folder)`: what reads bytes, using that folder, and the files that it begins with."""

    make: Callable[[Path], tuple[Run, list[bytes]]]
    mutate: Mutate


def allowed() -> tuple[type[BaseException], ...]:
    """What a loader may raise: the package's own errors, and what the system says of files."""
    from experiments.settings import BadOption
    from experiments.text import UnreadableText
    from mech.errors import BadInput
    from toy.certify.decimals import Rejected
    from toy.errors import Refused

    return BadInput, BadOption, UnreadableText, Refused, Rejected, OSError


def one_line(error: BaseException) -> None:
    """An error that is the package's own is short; `ctr` itself makes spaces of ends of line."""
    if not isinstance(error, OSError):
        assert len(str(error)) < 4000, len(str(error))


def guarded(run: Run) -> Run:
    """`run`, whose own errors are answers; anything else goes through: it is a crash."""
    kinds = allowed()

    def once(data: bytes) -> None:
        try:
            run(data)
        except kinds as error:
            one_line(error)

    return once


def digest(data: bytes) -> str:
    """A short name of an input."""
    return hashlib.sha256(data).hexdigest()[:12]
