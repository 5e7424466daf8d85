"""What was measured, once and for all: a file of lines that a kill cannot spoil."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mech.errors import BadInput


class Journal:
    """Values by key in a file of JSON lines; each is on the disk before the next is asked for.

    The first line says what the values depend on. A search that is deterministic given its values
    and starts again with its journal goes the same way, without measuring anything twice. A last
    line that was cut off by a kill is dropped. Without a file the journal forgets.

    Raises BadInput where the file is of another search, or is damaged before its last line.
    """

    def __init__(self, file: Path | None, of: Mapping[str, Any]):
        self.values: dict[str, float] = {}
        self.measured = 0
        self._file = file
        if file is None:
            return
        first = json.dumps({"of": of}, sort_keys=True)
        lines = _whole_lines(file) if file.exists() else []
        if not lines:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(first + "\n", encoding="utf-8")
            return
        if lines[0] != first:
            raise BadInput(f"{file} is of another search: delete it, or name another file")
        for line in lines[1:]:
            try:
                self.values |= {str(k): float(v) for k, v in json.loads(line).items()}
            except (ValueError, AttributeError, TypeError) as error:
                raise BadInput(f"{file} is damaged: delete it, and search again") from error

    def add(self, found: Mapping[str, float]) -> None:
        """Keep these values."""
        self.values |= found
        self.measured += len(found)
        if self._file is not None and found:
            with self._file.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(dict(found)) + "\n")
                handle.flush()
                os.fsync(handle.fileno())


def key(value: Any) -> str:
    """A short name of anything that JSON can say."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


def _whole_lines(file: Path) -> list[str]:
    """The lines that end; what follows the last end is cut off the file, too."""
    data = file.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        with file.open("r+b") as handle:
            handle.truncate(end)
    return data[:end].decode("utf-8", errors="replace").splitlines()
