"""What decides the bytes of a compression: two runs whose fingerprints agree give the same ones."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from jaxtyping import Float, Int
from torch import Tensor, nn

import bridge
import ctr_kernels
import mech
from bridge.manifest import content_hash
from mech.digest import sha256
from mech.errors import BadInput
from mech.ondisk import where

FORMAT = 1
"""Raised by hand where the layout of a shard changes; the code itself is hashed."""


def fingerprint(
    model: nn.Module,
    method: Any,
    batches: Sequence[Int[Tensor, "_batch _seq"]],
    *,
    select: str = "*",
    token_weights: Sequence[Float[Tensor, "_batch _seq"]] | None = None,
) -> dict[str, str]:
    """What the result is a function of, a line each, in words where they are short.

    SHA-256 of the weights and of the configuration, the method with all of its values, of the
    calibration ids (how they are split into batches included: sums are taken in that order), of
    token weights and of the source of this library; dtype and device, versions, threads, ranks
    and the processor's vector instructions, since all of them move last bits.

    Raises BadInput for a method that cannot say what it is: two values of it would look alike.
    """
    config = getattr(model, "config", None)
    return {
        "format": str(FORMAT),
        "model": f"{type(model).__name__} {content_hash(model)}",
        "configuration": _sha256(_settings(config)),
        "dtype and device": _kinds(model),
        "method": json.dumps(told(method), sort_keys=True, ensure_ascii=False),
        "select": select,
        "calibration": _tensors(batches),
        "token weights": "none" if token_weights is None else _tensors(token_weights),
        "arithmetic": (
            f"torch {torch.__version__}, transformers {transformers.__version__}, "
            f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
            f"{_ranks()}"
        ),
        "code": _code(),
    }


def told(value: Any) -> Any:
    """A method, or a value in one, as plain JSON that no other value shares.

    Tensors are told by their content. Raises BadInput for a type that has no such form.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: told(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"": _called(type(value)), **fields}
    if isinstance(value, Tensor):
        return f"sha256 {_tensors([value])}"
    if isinstance(value, Mapping):
        return {str(key): told(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [told(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Enum):
        return f"{_called(type(value))}.{value.name}"
    if isinstance(value, torch.dtype):
        return str(value)
    if isinstance(value, type) or callable(value):
        return _called(value)
    raise BadInput(
        f"a {type(value).__name__} in a method cannot be told apart from another: "
        "make the method a frozen dataclass of plain values"
    )


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, row by row."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def _ranks() -> str:
    """Sums over ranks are taken rank by rank."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    size = torch.distributed.get_world_size() if together else 1
    return f", {size} ranks" if size > 1 else ""


def _called(value: Any) -> str:
    name = f"{getattr(value, '__module__', '?')}.{getattr(value, '__qualname__', '<none>')}"
    if "<lambda>" in name or "<none>" in name:
        raise BadInput(f"{value!r} in a method has no name of its own: use a named function")
    return name


def _settings(config: Any) -> str:
    if config is None:
        return "none"
    # How attention and experts are computed is no part of the dictionary, and moves last bits.
    ways = [getattr(config, f"_{part}_implementation", None) for part in ("attn", "experts")]
    settings = config.to_dict()
    for name in ("_name_or_path", "transformers_version"):
        settings.pop(name, None)
    return json.dumps([ways, settings], sort_keys=True, default=str)


def _kinds(model: nn.Module) -> str:
    places = {p.device if not p.is_meta else where(model) for p in model.parameters()}
    dtypes = {str(p.dtype).removeprefix("torch.") for p in model.parameters()}
    found = {f"{dtype} on {place}" for dtype in dtypes for place in places}
    return ", ".join(sorted(found))


def _tensors(tensors: Sequence[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(raw(tensor))
    return digest.hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _code() -> str:
    lines = []
    for package in (mech, bridge, ctr_kernels):
        root = Path(next(iter(package.__path__)))
        for file in sorted(root.rglob("*.py")):
            lines.append(f"{package.__name__}/{file.relative_to(root)} {sha256([file])}")
    return _sha256("\n".join(lines))
