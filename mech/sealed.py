"""A folder that says the SHA-256 of its files is believed only where they are those."""

import json
from pathlib import Path, PurePosixPath

from mech.digest import sha256
from mech.errors import BadInput

MANIFEST = "manifest.json"


def check_sealed(folder: Path) -> None:
    """Nothing where `folder` has no manifest of ours, or its files are those that were saved.

    A flipped byte in a safetensors file loads silently; here it does not. Raises BadInput, naming
    the file, where one that the manifest tells of is missing or was changed.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return
    again = "save the model again, or fetch it whole"
    try:
        content = json.loads(manifest.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{manifest} cannot be read: {again}") from error
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or "format" not in content:
        return  # another tool's: it tells of no sums
    for name, entry in files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name or not isinstance(entry, dict):
            raise BadInput(f"{manifest} names {name!r}, which is no file of its folder: refused")
        file = folder / path
        if not file.is_file():
            raise BadInput(f"{file} is missing: {again}")
        if sha256([file]) != entry.get("sha256"):
            raise BadInput(f"{file} is not the file that was saved: {again}")
