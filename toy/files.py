"""Files that are whole or not there, whatever ends the process that writes them."""

import os
from pathlib import Path

SUFFIX = ".partial"


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step: a reader sees the old file or the new one.

    The bytes reach the disk before the name does (fsync of the file, rename, fsync of the
    folder), so that neither kill -9 nor a power cut leaves a part under the name.
    Raises `OSError`: a full disk, a folder that cannot be written.
    """
    partial = path.with_name(path.name + SUFFIX)
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def forget_parts(folder: Path) -> None:
    """Remove what a killed writer left behind."""
    for part in folder.glob(f"*{SUFFIX}"):
        part.unlink(missing_ok=True)
