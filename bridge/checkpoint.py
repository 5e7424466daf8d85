"""Save a compressed model as an ordinary checkpoint: whole, verified, or not at all.

The dense form: every operator is folded back into a linear, so any tool that loads the family
loads the result. It is as large and as fast as the original; zeros are stored as zeros.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from bridge.operators import Affine, LinearOperator, Operator
from bridge.sites import operators
from bridge.toggle import swap
from mech.digest import sha256
from mech.disk import flush
from mech.errors import BadInput
from mech.quiet import quiet

MANIFEST = "manifest.json"
FORMAT = 1


def save_dense(
    model: Any, tokenizer: Any | None, folder: Path | str, provenance: Mapping[str, Any]
) -> Path:
    """Write `folder` with Hugging Face's own files, and `manifest.json` beside them.

    The manifest holds the SHA-256 and size of every file, a hash of all tensors by content, and
    `provenance` as it is given (plain JSON values). Everything is written to a temporary folder
    beside `folder`, loaded again, compared with the model in memory by that hash, and only then
    renamed. The model is left as it was. Terms that are switched off are saved as zero.

    Raises BadInput where `folder` exists, where an operator has no matrix, or where what was
    loaded again is not what was saved; OSError where the disk refuses. Nothing is left behind
    but the folders above `folder`, which are made where they are missing.
    """
    folder = Path(folder).absolute()
    if folder.exists():
        raise BadInput(f"{folder} exists: choose another folder or remove it")
    try:
        json.dumps(dict(provenance), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadInput(f"provenance: plain JSON values only ({error})") from error
    with _clear_errors(folder), ExitStack() as stack:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        stack.callback(shutil.rmtree, partial, ignore_errors=True)
        linears = {name: _linear(op, name) for name, op in operators(model).items()}
        with swap(model, linears), quiet():
            model.save_pretrained(partial)
            content = content_hash(model)
        if tokenizer is not None:
            tokenizer.save_pretrained(partial)
        with quiet():
            again = type(model).from_pretrained(partial, dtype="auto", local_files_only=True)
        if content_hash(again) != content:
            raise BadInput(f"{folder}: what was written does not load as what was in memory")
        _write_manifest(partial, content, provenance)
        partial.chmod(0o755)
        partial.rename(folder)
        flush(folder.parent)
    return folder


def verify(folder: Path | str) -> dict[str, Any]:
    """The manifest of a folder whose files are those that were saved.

    Raises BadInput, naming the file, where one is missing or was changed, the manifest included
    where it can no longer be read. A file that was added is not looked at.
    """
    folder = Path(folder)
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise BadInput(f"{folder} has no {MANIFEST}: it was not saved by this library")
    try:
        content = json.loads(manifest.read_text())
        sums = {name: entry["sha256"] for name, entry in content["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{manifest} cannot be read: save the model again") from error
    for name, expected in sums.items():
        file = folder / name
        if not file.is_file():
            raise BadInput(f"{file} is missing: save the model again")
        if sha256([file]) != expected:
            raise BadInput(f"{file} is not the file that was saved: save the model again")
    return content


def content_hash(model: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all tensors of `model`, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _linear(operator: Operator, name: str) -> nn.Linear:
    bias = operator.bias if isinstance(operator, Affine) else None
    term = operator.term if isinstance(operator, Affine) else operator
    if not isinstance(term, LinearOperator):
        raise BadInput(f"{name}: a {type(term).__name__} has no matrix to save")
    dense = term.dense()
    linear = nn.Linear(dense.shape[1], dense.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(dense.contiguous(), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear


def _write_manifest(folder: Path, content: str, provenance: Mapping[str, Any]) -> None:
    files = {
        str(path.relative_to(folder)): {"sha256": sha256([path]), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {
        "format": FORMAT,
        "files": files,
        "tensors": content,
        "provenance": dict(provenance),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    for path in [*folder.rglob("*"), folder]:
        flush(path)


@contextmanager
def _clear_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"cannot write {folder}: {error}; nothing was left behind") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            error.errno, f"cannot write {folder}: {reason}; nothing was left behind"
        ) from error
