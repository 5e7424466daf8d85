"""SHA-256 of files, streamed."""

import hashlib
from collections.abc import Sequence
from pathlib import Path


def sha256(files: Sequence[Path]) -> str:
    """The digest of one file; of several, the digest of their sorted `name digest` lines."""
    digests = {path.name: _of_file(path) for path in files}
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{name} {digests[name]}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
