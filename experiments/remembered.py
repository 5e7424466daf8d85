"""Work that is done once: arrays and facts, kept by what they depend on."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from experiments.serial import plain
from experiments.settings import BadOption


class Found(NamedTuple):
    """Arrays by name, and numbers and words by name."""

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def remembered(folder: Path, key: Mapping[str, Any], compute: Callable[[], Found]) -> Found:
    """What `compute` gave for this key, from `folder` where it was computed before.

    The key is everything that the answer depends on, in JSON's own types; its hash names the
    file, which is written whole or not at all. Safetensors: arrays, and the facts as JSON.

    Raises:
        BadOption: a file in the folder is damaged, or was written for another key.
    """
    named = json.dumps(plain(key), sort_keys=True, ensure_ascii=False)
    file = folder / f"{hashlib.sha256(named.encode()).hexdigest()[:16]}.safetensors"
    if file.exists():
        return _read(file, named)
    found = compute()
    facts = json.dumps(_exact(found.facts), ensure_ascii=False)
    folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".partial-{os.getpid()}")
    arrays = {name: np.ascontiguousarray(array) for name, array in found.arrays.items()}
    try:
        with partial.open("wb") as handle:
            handle.write(save(arrays, {"key": named, "facts": facts}))
            handle.flush()
            os.fsync(handle.fileno())
        partial.rename(file)
    finally:
        partial.unlink(missing_ok=True)
    return Found(arrays, json.loads(facts))


def _exact(value: Any) -> Any:
    """As `plain`, but NaN and infinities stay numbers: only Python reads these facts again."""
    if isinstance(value, Mapping):
        return {str(key): _exact(item) for key, item in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_asdict"):
        return [_exact(item) for item in value]
    return float(value) if isinstance(value, float | np.floating) else plain(value)


def _read(file: Path, named: str) -> Found:
    try:
        with safe_open(file, framework="np") as stored:
            facts = stored.metadata()
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        if facts["key"] != named:
            raise KeyError("key")
        return Found(arrays, json.loads(facts["facts"]))
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise BadOption(f"{file} is damaged or of another run: delete it") from error
