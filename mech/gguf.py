"""A GGUF file as a folder of plain weights, dequantised once and kept.

Dequantising takes a minute, reading the result a second. The result lies in the user's cache
under the SHA-256 of the GGUF file. It is written beside its place, flushed to disk and then
renamed: a process killed in the middle leaves nothing that could be taken for a result, and of
two processes at once the second finds the first one's result in place and drops its own.
"""

import os
import shutil
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from mech.digest import sha256
from mech.disk import flush
from mech.errors import BadInput
from mech.quiet import quiet

# What a killed process left is removed by a later conversion; a younger one may be at work.
_ABANDONED_AFTER = 24 * 3600


def cache_folder() -> Path:
    """$CTR_CACHE, or the user's cache folder (XDG) / catch-tag-release."""
    if own := os.environ.get("CTR_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "catch-tag-release"


def place_of(file: Path) -> Path:
    """Where the conversion of `file` lies, or will."""
    return cache_folder() / "gguf" / sha256([file])


def converted(file: Path, *, advance: Callable[[str], None] | None = None) -> Path:
    """The folder that holds `file` as safetensors with its tokenizer, made where it is missing.

    Raises BadInput on a file that is no readable GGUF, and where the cache cannot be written.
    """
    place = place_of(file)
    if place.is_dir():
        return place
    if advance is not None:
        advance(f"dequantising {file.name} once (about a minute), into {place}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _sweep(place.parent)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=place.parent))
    except OSError as error:
        raise _unwritable(error) from error
    try:
        _dequantise(file, partial)
        _publish(partial, place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return place


def _dequantise(file: Path, folder: Path) -> None:
    """Write `file` into `folder` as float32 safetensors, with configuration and tokenizer."""
    try:
        with quiet():
            place = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
            config = AutoConfig.from_pretrained(file.parent, **place)
            tokenizer = AutoTokenizer.from_pretrained(file.parent, **place)
            _check_blocks(file, config)
            # On the meta device: every weight comes from the file and none is made first.
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            read = load_gguf_checkpoint(
                str(file), return_tensors=True, model_to_load=model, torch_dtype=torch.float32
            )
            tensors = read["tensors"]
            model.load_state_dict(tensors, strict=False, assign=True)
            model.tie_weights()
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{file} cannot be read as GGUF: {_line(error)}") from error
    given = {tensor.data_ptr() for tensor in tensors.values()}
    missing = [name for name, p in model.named_parameters() if p.data_ptr() not in given]
    if missing:
        raise BadInput(f"{file} lacks {len(missing)} weights of the model, first {missing[0]}")
    try:
        with quiet():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except OSError as error:
        raise _unwritable(error) from error


def _check_blocks(file: Path, config: Any) -> None:
    """A damaged count of blocks would have us make thousands of them before one is missed."""
    with file.open("rb") as stream:
        _, tensors = struct.unpack("<8sQ", stream.read(16))  # magic and version, then the count
    blocks = getattr(config, "num_hidden_layers", 0)
    if blocks > tensors:
        raise BadInput(f"{file} tells of {blocks} blocks and {tensors} tensors: fetch it again")


def _publish(partial: Path, place: Path) -> None:
    for path in [*partial.iterdir(), partial]:
        flush(path)
    try:
        partial.rename(place)
    except OSError:
        # Renaming onto a folder that is not empty fails: another process was first.
        if not place.is_dir():
            raise
    flush(place.parent)


def _sweep(folder: Path) -> None:
    for partial in folder.glob(".partial-*"):
        if time.time() - partial.stat().st_mtime > _ABANDONED_AFTER:
            shutil.rmtree(partial, ignore_errors=True)


def _unwritable(error: OSError) -> BadInput:
    return BadInput(f"cannot write the cache: {error}; set CTR_CACHE to another folder")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
