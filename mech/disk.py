"""Bytes and names on the disk itself, before anything relies on them."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

PARTIAL = ".partial"
"""What is appended to the name of a file that is being written, and may be half of one."""


def flush(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk.

    A rename may otherwise reach it before the bytes that it names.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(file: Path, content: bytes) -> None:
    """`file` holds all of `content` or is as it was, also after a kill or a loss of power.

    Raises OSError where the disk refuses; only a kill leaves the partial file behind.
    """
    partial = file.with_name(file.name + PARTIAL)
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    flush(file.parent)


@contextmanager
def as_the_system_says() -> Iterator[None]:
    """What safetensors says of a disk that refuses, as the OSError with the system's number."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
