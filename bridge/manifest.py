"""What a saved folder says of itself: SHA-256 of every file, of all tensors, and provenance."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn

from mech.digest import sha256
from mech.disk import flush
from mech.errors import BadInput
from mech.ondisk import in_order, on_disk

MANIFEST = "manifest.json"
FORMAT = 2
"""1 had neither form nor layers; it is still read."""


def write(folder: Path, **says: Any) -> None:
    """`manifest.json` of what lies in `folder`, and all of it on the disk before this returns."""
    files = {
        path.relative_to(folder).as_posix(): {
            "sha256": sha256([path]),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {"format": FORMAT, "files": files, **says}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    for path in [*folder.rglob("*"), folder]:
        flush(path)


def verify(folder: Path | str, again: str = "save the model again") -> dict[str, Any]:
    """The manifest of a folder whose files are those that were saved; `again`: what to do if not.

    Raises BadInput, naming the file, where one is missing or was changed, the manifest included
    where it can no longer be read or names a file outside the folder. A file that was added is
    not looked at.
    """
    folder = Path(folder)
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise BadInput(
            f"{folder} has no {MANIFEST}: it was not saved by this library, or not fetched whole"
        )
    try:
        content = json.loads(manifest.read_bytes())
        sums = {str(name): str(entry["sha256"]) for name, entry in content["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"{manifest} cannot be read: {again}") from error
    for name, expected in sums.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
            raise BadInput(f"{manifest} names {name!r}, which is no file of its folder: refused")
        file = folder / path
        if not file.is_file():
            raise BadInput(f"{file} is missing: {again}")
        if sha256([file]) != expected:
            raise BadInput(f"{file} is not the file that was saved: {again}")
    return content


def content_hash(model: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all tensors of `model`, sorted by name.

    Of a model whose weights stay in its folder (`mech.ondisk`) it is the same, and reads them once.
    """
    if not on_disk(model):
        return tensors_hash(model.state_dict())
    digest = hashlib.sha256()
    for name, tensor in in_order(model):
        count(digest, name, tensor)
    return digest.hexdigest()


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """The same over tensors by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        count(digest, name, tensor)
    return digest.hexdigest()


def count(digest: Any, name: str, tensor: Tensor) -> None:
    """One more tensor of such a hash; they have to come sorted by name."""
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    digest.update(content.numpy().data)
